using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// What a process that serves its own kernel's disks asks of the kernel, so that it makes progress when memory is
/// short: writing dirty pages back must not wait for this process, while this process waits for pages to be written
/// back.
/// </summary>
public static unsafe class ProcessMemory
{
    /// <summary>
    /// This process's own allocations do not wait for I/O (PR_SET_IO_FLUSHER, Linux 5.6): it is for one thread and
    /// those that it starts, so it is set before the runtime starts its own, by <see cref="RestartAsIoFlusher"/>.
    /// </summary>
    public static bool IsIoFlusher => LibC.PrCtl(PrctlGetIoFlusher, 0, 0, 0, 0) > 0;

    /// <summary>
    /// Starts the program again in the place of this process, as an I/O flusher, all its threads included. Returns only
    /// if that cannot be had, with the errno: EPERM without CAP_SYS_RESOURCE, EINVAL before Linux 5.6.
    /// </summary>
    public static int RestartAsIoFlusher(string program, IReadOnlyList<string> words) =>
        LibC.PrCtl(PrctlSetIoFlusher, 1, 0, 0, 0) != 0 ? LibC.LastErrno : Restart(program, words);

    /// <summary>Puts a program in the place of this process. Returns only if that cannot be, with the errno.</summary>
    public static int Restart(string program, IReadOnlyList<string> words)
    {
        using var list = new NativeStrings(words);
        _ = LibC.Execute(program, list.Start);
        return LibC.LastErrno;
    }

    /// <summary>What the process is called in lists of processes: the first 15 bytes. A program that was started from a descriptor has the number of that as its name.</summary>
    public static void SetName(string name)
    {
        using var list = new NativeStrings([name]);
        _ = LibC.PrCtl(PrctlSetName, (nuint)list[0], 0, 0, 0);
    }

    /// <summary>
    /// Gives the whole pages of a part of a buffer back to the system: they are zeroes afterwards, and take no memory until they are
    /// touched. Nothing happens where the kernel has the pages for itself, or cannot give them back. Nobody may use the bytes meanwhile.
    /// </summary>
    public static void GiveBack(NativeBuffer buffer, long offset, long length) => buffer.GiveBack(offset, length);

    /// <summary>
    /// Keeps what this process has touched, and will touch, in memory (mlockall with MCL_ONFAULT). Returns 0 or a
    /// negative errno: EPERM without CAP_IPC_LOCK, also where a limit would allow what is mapped now, because all that is mapped later
    /// would count for it, and fail.
    /// </summary>
    public static int LockAll()
    {
        if (!Privilege.Has(Privilege.LockMemory) && ProcessLimits.LockedMemory != ulong.MaxValue)
            return -Errno.EPERM;
        return LibC.MLockAll(LockCurrent | LockFuture | LockOnFault) == 0 ? 0 : -LibC.LastErrno;
    }
}
