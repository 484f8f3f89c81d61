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
        nint context;
        // SAFETY: the text ends with a zero and does not move.
        fixed (byte* type = "fuse\0"u8)
            context = LibC.SystemCall(SyscallFsOpen, (nint)type, FsOpenCloseOnExec, 0, 0, 0, 0);
        if (context < 0)
            throw SystemCallException.Last("fsopen", "fuse");
        using var settings = FileDescriptor.Own((int)context, "fsopen fuse");
        Set(settings, "source", source);
        Set(settings, "subtype", subtype);
        Set(settings, "fd", channel.Descriptor.Number.ToString(CultureInfo.InvariantCulture));
        Set(settings, "rootmode", "40000");
        Set(settings, "user_id", LibC.GetEffectiveUserId().ToString(CultureInfo.InvariantCulture));
        Set(settings, "group_id", LibC.GetEffectiveGroupId().ToString(CultureInfo.InvariantCulture));
        if (LibC.SystemCall(SyscallFsConfig, settings.Number, FsConfigCreate, 0, 0, 0, 0) < 0)
            throw SystemCallException.Last("fsconfig", "fuse");
        nint mount = LibC.SystemCall(SyscallFsMount, settings.Number, FsMountCloseOnExec, 0, 0, 0, 0);
        return mount < 0
            ? throw SystemCallException.Last("fsmount", "fuse")
            : new FuseMount(FileDescriptor.Own((int)mount, "fuse mount"));
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
