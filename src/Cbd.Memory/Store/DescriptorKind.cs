using System.Text;

namespace Cbd.Memory.Store;

/// <summary>What a descriptor is, as far as descriptors that outlive a process are concerned.</summary>
public enum DescriptorKind
{
    /// <summary>Anything else: a file, a directory, a device, a lock.</summary>
    Other = 0,

    /// <summary>A socket of any family.</summary>
    Socket = 1,

    /// <summary>A channel of <c>/dev/fuse</c>.</summary>
    FuseChannel = 2,

    /// <summary>A file in memory without a name (memfd_create).</summary>
    Memory = 3,

    /// <summary>An end of a pipe without a name.</summary>
    Pipe = 4,
}

/// <summary>
/// Tells what a descriptor is by the text of its link in <c>/proc</c>. It asks nobody else: <c>fstat</c> on a channel or a file of a FUSE mount
/// waits for the process that serves it. Thread-safe.
/// </summary>
public static unsafe class DescriptorKinds
{
    private const int MostBytes = 256;

    /// <summary>The kind of an open descriptor.</summary>
    public static DescriptorKind Of(FileDescriptor descriptor)
    {
        byte* text = stackalloc byte[MostBytes];
        // SAFETY: the call stores at most that many bytes on this stack.
        nint length = LibC.ReadLink($"/proc/self/fd/{descriptor.Number}", text, MostBytes);
        GC.KeepAlive(descriptor);
        return length < 0 ? DescriptorKind.Other : OfLink(Encoding.UTF8.GetString(text, (int)length));
    }

    /// <summary>The kind that such a link is of.</summary>
    internal static DescriptorKind OfLink(string link) => link switch
    {
        "/dev/fuse" => DescriptorKind.FuseChannel,
        _ when link.StartsWith("socket:[", StringComparison.Ordinal) => DescriptorKind.Socket,
        _ when link.StartsWith("pipe:[", StringComparison.Ordinal) => DescriptorKind.Pipe,
        // "/memfd:NAME (deleted)"; a file of that name in the tree has no such end, or is deleted and of no use.
        _ when link.StartsWith("/memfd:", StringComparison.Ordinal) && link.EndsWith(" (deleted)", StringComparison.Ordinal) => DescriptorKind.Memory,
        _ => DescriptorKind.Other,
    };
}
