using System.Globalization;
using System.Text;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Fuse;

/// <summary>
/// A FUSE file system that is mounted nowhere: no path leads to it, only the descriptor of this mount, and it is gone
/// when that and the files opened through it are closed, however this process ends. Linux 5.4.
/// </summary>
public sealed unsafe class FuseMount : IDisposable
{
    private FuseMount(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>
    /// The number of the connection in fusectl: the minor number of the file system's device. Nobody else has it while the mount or a file
    /// below it is open. Does not wait for the server.
    /// </summary>
    public uint GetConnectionNumber()
    {
        int error = FileStatus.TryGetDeviceMinor(Descriptor, out uint minor);
        return error == 0 ? minor : throw new SystemCallException("statx", -error, "fuse mount");
    }

    /// <summary>The mount's root, to open files below and to hand on to another process.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>
    /// Mounts what <paramref name="channel"/> serves. Does not wait for an answer on the channel. The owner of the
    /// files is this process's user, and nobody else may look them up.
    /// </summary>
    /// <param name="channel">Where its requests will be read.</param>
    /// <param name="source">What lists of mounts show as its source.</param>
    /// <param name="subtype">The kind of file system that lists show: <c>fuse.SUBTYPE</c>.</param>
    public static FuseMount Create(FuseChannel channel, string source, string subtype)
    {
        using FileDescriptor settings = Begin("fuse");
        Set(settings, "source", source);
        Set(settings, "subtype", subtype);
        Set(settings, "fd", channel.Descriptor.Number.ToString(CultureInfo.InvariantCulture));
        Set(settings, "rootmode", "40000");
        Set(settings, "user_id", LibC.GetEffectiveUserId().ToString(CultureInfo.InvariantCulture));
        Set(settings, "group_id", LibC.GetEffectiveGroupId().ToString(CultureInfo.InvariantCulture));
        return new FuseMount(Finish(settings, "fuse"));
    }

    /// <summary>
    /// Ends a connection, however many duplicates of its channels are open anywhere: every request in it gets an error, and so does every
    /// later one. fusectl need not be mounted. Returns 0 or a negative errno: ENOENT if there is no such connection.
    /// </summary>
    /// <param name="connection">As <see cref="GetConnectionNumber"/> told. The caller knows that it still is this file system's.</param>
    public static int TryAbort(uint connection)
    {
        using FileDescriptor settings = Begin("fusectl");
        using FileDescriptor control = Finish(settings, "fusectl");
        int error = control.TryOpenBelow(
            string.Create(CultureInfo.InvariantCulture, $"{connection}/abort"), OpenFlags.WriteOnly, out FileDescriptor? descriptor);
        using FileDescriptor? abort = descriptor;
        if (abort is null)
            return error;
        byte one = (byte)'1';
        // SAFETY: the kernel reads one byte of this stack frame.
        return LibC.Write(abort, &one, 1) == 1 ? 0 : -LibC.LastErrno;
    }

    private static FileDescriptor Begin(string type)
    {
        byte[] text = Encoding.UTF8.GetBytes(type + '\0');
        nint context;
        // SAFETY: the text ends with a zero and does not move.
        fixed (byte* start = text)
            context = LibC.SystemCall(SyscallFsOpen, (nint)start, FsOpenCloseOnExec, 0, 0, 0, 0);
        return context < 0 ? throw SystemCallException.Last("fsopen", type) : FileDescriptor.Own((int)context, $"fsopen {type}");
    }

    private static FileDescriptor Finish(FileDescriptor settings, string type)
    {
        if (LibC.SystemCall(SyscallFsConfig, settings.Number, FsConfigCreate, 0, 0, 0, 0) < 0)
            throw SystemCallException.Last("fsconfig", type);
        nint mount = LibC.SystemCall(SyscallFsMount, settings.Number, FsMountCloseOnExec, 0, 0, 0, 0);
        return mount < 0 ? throw SystemCallException.Last("fsmount", type) : FileDescriptor.Own((int)mount, $"{type} mount");
    }

    public void Dispose() => Descriptor.Dispose();

    private static void Set(FileDescriptor settings, string key, string value)
    {
        byte[] keyText = Encoding.UTF8.GetBytes(key + '\0');
        byte[] valueText = Encoding.UTF8.GetBytes(value + '\0');
        // SAFETY: both texts end with a zero and do not move during the call.
        fixed (byte* keyAt = keyText, valueAt = valueText)
        {
            if (LibC.SystemCall(SyscallFsConfig, settings.Number, FsConfigSetString, (nint)keyAt, (nint)valueAt, 0, 0) < 0)
                throw SystemCallException.Last("fsconfig", $"{key}={value}");
        }
    }
}
