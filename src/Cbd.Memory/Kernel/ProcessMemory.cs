using System.Text;
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
    public static int RestartAsIoFlusher(string program, IReadOnlyList<string> words)
    {
        if (LibC.PrCtl(PrctlSetIoFlusher, 1, 0, 0, 0) != 0)
            return LibC.LastErrno;
        byte[][] texts = [.. words.Select(word => Encoding.UTF8.GetBytes(word + '\0'))];
        byte[] all = [.. texts.SelectMany(text => text)];
        var list = new nint[words.Count + 1];
        // SAFETY: neither moves until the call has replaced the process, or failed. The list ends with a null.
        fixed (byte* start = all)
        fixed (nint* first = list)
        {
            nint at = (nint)start;
            for (int i = 0; i < texts.Length; i++)
            {
                list[i] = at;
                at += texts[i].Length;
            }

            _ = LibC.Execute(program, (byte**)first);
        }

        return LibC.LastErrno;
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
