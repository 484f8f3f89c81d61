using System.Runtime.InteropServices;

namespace Cbd.Memory.Fuse;

/// <summary>Requests that the kernel makes of a file system in user space (linux/fuse.h, <c>enum fuse_opcode</c>).</summary>
public enum FuseOperation : uint
{
    Lookup = 1,
    Forget = 2,
    GetAttributes = 3,
    SetAttributes = 4,
    Open = 14,
    Read = 15,
    Write = 16,
    StatFs = 17,
    Release = 18,
    Synchronize = 20,
    Flush = 25,
    Init = 26,
    OpenDirectory = 27,
    ReadDirectory = 28,
    ReleaseDirectory = 29,
    Interrupt = 36,
    Destroy = 38,
    BatchForget = 42,
    Allocate = 43,
}

/// <summary>What a file system tells the kernel without being asked (linux/fuse.h, <c>enum fuse_notify_code</c>).</summary>
public enum FuseNotification
{
    InvalidateInode = 2,
    Store = 4,
}

/// <summary>
/// The protocol of <c>/dev/fuse</c> (linux/fuse.h), version 7: numbers and messages, in the byte order of the machine.
/// A message from the kernel is a <see cref="RequestHeader"/> with the structure of its operation; an answer is a
/// <see cref="ReplyHeader"/> with its own. Layouts and numbers are compared with the installed header by a test.
/// </summary>
public static class FuseProtocol
{
    public const uint Version = 7;

    /// <summary>The version that is spoken: that of Linux 5.4. What came later is not asked for.</summary>
    public const uint MinorVersion = 31;

    public const ulong RootNode = 1;

    /// <summary>The kernel refuses to be read with a smaller buffer.</summary>
    public const int MinimumReadBytes = 8192;

    public const uint InitAsyncRead = 1 << 0;
    public const uint InitBigWrites = 1 << 5;
    public const uint InitAsyncDirectIo = 1 << 15;
    public const uint InitMaxPages = 1 << 22;

    public const uint OpenDirectIo = 1 << 0;
    public const uint OpenKeepCache = 1 << 1;
    public const uint OpenNoFlush = 1 << 5;
    public const uint OpenParallelDirectWrites = 1 << 6;

    public const nuint IoctlClone = 0x8004e500;

    /// <summary>struct fuse_in_header; its end is padding, or the length of extensions that are not asked for.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 40)]
    public struct RequestHeader
    {
        [FieldOffset(0)] public uint Length;
        [FieldOffset(4)] public FuseOperation Operation;
        [FieldOffset(8)] public ulong Unique;
        [FieldOffset(16)] public ulong Node;
    }

    /// <summary>struct fuse_out_header; <see cref="Error"/> is 0 or a negative errno.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct ReplyHeader
    {
        public uint Length;
        public int Error;
        public ulong Unique;
    }

    /// <summary>struct fuse_init_in; kernels before 5.18 send the first 16 bytes of it.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct InitRequest
    {
        [FieldOffset(0)] public uint Major;
        [FieldOffset(4)] public uint Minor;
        [FieldOffset(8)] public uint MaxReadahead;
        [FieldOffset(12)] public uint Flags;
        [FieldOffset(16)] public uint MoreFlags;
    }

    /// <summary>struct fuse_init_out.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 64)]
    public struct InitReply
    {
        [FieldOffset(0)] public uint Major;
        [FieldOffset(4)] public uint Minor;
        [FieldOffset(8)] public uint MaxReadahead;
        [FieldOffset(12)] public uint Flags;
        [FieldOffset(16)] public ushort MaxBackground;
        [FieldOffset(18)] public ushort CongestionThreshold;
        [FieldOffset(20)] public uint MaxWrite;
        [FieldOffset(24)] public uint TimeGranularity;
        [FieldOffset(28)] public ushort MaxPages;
    }

    /// <summary>struct fuse_attr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Attributes
    {
        public ulong Inode;
        public ulong SizeBytes;
        public ulong Blocks;
        public ulong AccessTime;
        public ulong ChangeTime;
        public ulong StatusTime;
        public uint AccessNanoseconds;
        public uint ChangeNanoseconds;
        public uint StatusNanoseconds;
        public uint Mode;
        public uint LinkCount;
        public uint UserId;
        public uint GroupId;
        public uint NodeDevice;
        public uint BlockBytes;
        public uint Flags;
    }

    /// <summary>struct fuse_entry_out: answers a lookup. Validities are seconds.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct EntryReply
    {
        public ulong Node;
        public ulong Generation;
        public ulong EntryValid;
        public ulong AttributesValid;
        public uint EntryValidNanoseconds;
        public uint AttributesValidNanoseconds;
        public Attributes Attributes;
    }

    /// <summary>struct fuse_attr_out.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct AttributesReply
    {
        public ulong Valid;
        public uint ValidNanoseconds;
        public uint Padding;
        public Attributes Attributes;
    }

    /// <summary>struct fuse_open_out.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct OpenReply
    {
        public ulong Handle;
        public uint Flags;
        public uint Padding;
    }

    /// <summary>struct fuse_read_in.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct ReadRequest
    {
        public ulong Handle;
        public ulong Offset;
        public uint Size;
        public uint ReadFlags;
        public ulong LockOwner;
        public uint FileFlags;
        public uint Padding;
    }

    /// <summary>struct fuse_write_in; the payload follows.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct WriteRequest
    {
        public ulong Handle;
        public ulong Offset;
        public uint Size;
        public uint WriteFlags;
        public ulong LockOwner;
        public uint FileFlags;
        public uint Padding;
    }

    /// <summary>struct fuse_write_out.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct WriteReply
    {
        public uint Size;
        public uint Padding;
    }

    /// <summary>struct fuse_fsync_in.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct SynchronizeRequest
    {
        public ulong Handle;
        public uint Flags;
        public uint Padding;
    }

    /// <summary>struct fuse_fallocate_in; <see cref="Mode"/> as of fallocate(2).</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct AllocateRequest
    {
        public ulong Handle;
        public ulong Offset;
        public ulong Length;
        public uint Mode;
        public uint Padding;
    }

    /// <summary>struct fuse_notify_store_out; the bytes follow.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct StoreNotification
    {
        public ulong Node;
        public ulong Offset;
        public uint Size;
        public uint Padding;
    }

    /// <summary>struct fuse_notify_inval_inode_out.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct InvalidateInodeNotification
    {
        public ulong Node;
        public long Offset;
        public long Length;
    }

    /// <summary>struct fuse_statfs_out.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 80)]
    public struct StatFsReply
    {
        [FieldOffset(0)] public ulong Blocks;
        [FieldOffset(8)] public ulong FreeBlocks;
        [FieldOffset(16)] public ulong AvailableBlocks;
        [FieldOffset(24)] public ulong Files;
        [FieldOffset(32)] public ulong FreeFiles;
        [FieldOffset(40)] public uint BlockBytes;
        [FieldOffset(44)] public uint NameBytes;
        [FieldOffset(48)] public uint FragmentBytes;
    }
}
