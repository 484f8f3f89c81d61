using System.Runtime.InteropServices;
using Cbd.Blocks;
using Cbd.Memory.Fuse;
using static Cbd.Memory.Fuse.FuseProtocol;

namespace Cbd.Exports.Fuse;

/// <summary>
/// Answers that the file system gives by itself, written into the bytes of a reply behind its header. Each returns how
/// many bytes it wrote.
/// </summary>
internal static class FuseReplies
{
    /// <summary>Bytes of a reply's header.</summary>
    internal static readonly int HeaderBytes = Marshal.SizeOf<ReplyHeader>();

    /// <summary>Requests that may be under way at once: more than a loop device ever has.</summary>
    private const ushort MaxBackground = 1024;

    /// <summary>The kernel need not ask for what it has seen; a growth is announced by asking anew.</summary>
    private const ulong ValidSeconds = 3600;

    private const uint DirectoryMode = 0x4140;    // S_IFDIR, 0500
    private const uint FileMode = 0x8180;         // S_IFREG, 0600
    private const uint ReadOnlyFileMode = 0x8100; // S_IFREG, 0400
    private const int StoredBlockBytes = 512;

    /// <summary>What is asked of the kernel if it has it.</summary>
    private const uint WantedFeatures = InitAsyncRead | InitBigWrites | InitAsyncDirectIo | InitMaxPages;

    internal static int Init(Span<byte> destination, in InitRequest request, int maxTransferBytes)
    {
        var reply = new InitReply
        {
            Major = FuseProtocol.Version,
            Minor = MinorVersion,
            MaxReadahead = request.MaxReadahead,
            Flags = request.Flags & WantedFeatures,
            MaxBackground = MaxBackground,
            CongestionThreshold = MaxBackground,
            MaxWrite = (uint)maxTransferBytes,
            TimeGranularity = 1,
            MaxPages = (ushort)(maxTransferBytes / 4096),
        };
        return Write(destination, reply);
    }

    internal static int Lookup(Span<byte> destination, BlockDeviceInfo device) => Write(destination, new EntryReply
    {
        Node = FuseRequest.FileNode,
        Generation = 1,
        EntryValid = ValidSeconds,
        AttributesValid = ValidSeconds,
        Attributes = Describe(FuseRequest.FileNode, device),
    });

    internal static int GetAttributes(Span<byte> destination, ulong node, BlockDeviceInfo device) =>
        Write(destination, new AttributesReply { Valid = ValidSeconds, Attributes = Describe(node, device) });

    internal static int Open(Span<byte> destination) =>
        Write(destination, new OpenReply { Handle = 1, Flags = OpenDirectIo | OpenNoFlush | OpenParallelDirectWrites });

    internal static int OpenDirectory(Span<byte> destination) => Write(destination, new OpenReply { Handle = 1 });

    /// <summary>The size of the blocks is what a loop device takes for the granularity of its discards.</summary>
    internal static int StatFs(Span<byte> destination, BlockDeviceInfo device)
    {
        uint block = (uint)Math.Max(device.DiscardGranularityBytes, device.LogicalBlockBytes);
        return Write(destination, new StatFsReply
        {
            Blocks = (ulong)device.SizeBytes / block,
            Files = 1,
            BlockBytes = block,
            NameBytes = 255,
            FragmentBytes = block,
        });
    }

    internal static int Written(Span<byte> destination, int bytes) => Write(destination, new WriteReply { Size = (uint)bytes });

    internal static void Header(Span<byte> destination, ulong unique, int errno, int bodyBytes) =>
        Write(destination, new ReplyHeader { Length = (uint)(HeaderBytes + bodyBytes), Error = -errno, Unique = unique });

    private static Attributes Describe(ulong node, BlockDeviceInfo device) => node == RootNode
        ? new Attributes { Inode = node, Mode = DirectoryMode, LinkCount = 2, BlockBytes = 4096 }
        : new Attributes
        {
            Inode = node,
            SizeBytes = (ulong)device.SizeBytes,
            Blocks = (ulong)device.SizeBytes / StoredBlockBytes,
            Mode = device.ReadOnly ? ReadOnlyFileMode : FileMode,
            LinkCount = 1,
            BlockBytes = (uint)device.PhysicalBlockBytes,
        };

    private static int Write<T>(Span<byte> destination, in T value)
        where T : struct
    {
        MemoryMarshal.Write(destination, in value);
        return Marshal.SizeOf<T>();
    }
}
