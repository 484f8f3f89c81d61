using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <content>
/// Structures of the kernel and the C library on 64-bit Linux. A test compares their layouts with the installed headers.
/// </content>
internal static unsafe partial class LibC
{
    /// <summary>The fields of <c>struct statx</c> that are used: the same on every architecture, unlike struct stat.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    internal struct StatxResult
    {
        [FieldOffset(0)] internal uint Mask;
        [FieldOffset(4)] internal uint BlockSize;
        [FieldOffset(8)] internal ulong Attributes;
        [FieldOffset(16)] internal uint LinkCount;
        [FieldOffset(20)] internal uint OwnerId;
        [FieldOffset(24)] internal uint GroupId;
        [FieldOffset(28)] internal ushort Mode;
        [FieldOffset(32)] internal ulong Inode;
        [FieldOffset(40)] internal ulong Size;
        [FieldOffset(48)] internal ulong Blocks;
        [FieldOffset(80)] internal long BirthSeconds;
        [FieldOffset(88)] internal uint BirthNanoseconds;
        [FieldOffset(112)] internal long ModifiedSeconds;
        [FieldOffset(120)] internal uint ModifiedNanoseconds;
        [FieldOffset(128)] internal uint NodeMajor;
        [FieldOffset(132)] internal uint NodeMinor;
        [FieldOffset(136)] internal uint DeviceMajor;
        [FieldOffset(140)] internal uint DeviceMinor;
        [FieldOffset(152)] internal uint DirectMemoryAlignment;
        [FieldOffset(156)] internal uint DirectOffsetAlignment;
        [FieldOffset(160)] internal ulong Subvolume;
    }

    /// <summary><c>struct flock</c>: a lock of a byte range.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 32)]
    internal struct FileLock
    {
        [FieldOffset(0)] internal short Type;
        [FieldOffset(2)] internal short Whence;
        [FieldOffset(8)] internal long Start;
        [FieldOffset(16)] internal long Length;
        [FieldOffset(24)] internal int ProcessId;
    }

    /// <summary><c>struct iovec</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct IoVector
    {
        internal void* Start;
        internal nuint Length;
    }

    /// <summary><c>struct msghdr</c> as the C library has it.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct MessageHeader
    {
        internal void* Name;
        internal uint NameLength;
        internal IoVector* Vectors;
        internal nuint VectorCount;
        internal void* Control;
        internal nuint ControlLength;
        internal int Flags;
    }

    /// <summary><c>struct cmsghdr</c>: what comes with a message, its bytes behind it.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct ControlHeader
    {
        internal nuint Length;
        internal int Level;
        internal int Type;
    }

    /// <summary><c>struct ucred</c>: who sent a message.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct Credentials
    {
        internal int ProcessId;
        internal uint UserId;
        internal uint GroupId;
    }

    /// <summary><c>struct pollfd</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct PollEntry
    {
        internal int Descriptor;
        internal short Events;
        internal short Returned;
    }

    /// <summary><c>struct group</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct Group
    {
        internal byte* Name;
        internal byte* Password;
        internal uint Id;
        internal byte** Members;
    }

    /// <summary><c>struct passwd</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct User
    {
        internal byte* Name;
        internal byte* Password;
        internal uint Id;
        internal uint GroupId;
        internal byte* RealName;
        internal byte* Home;
        internal byte* Shell;
    }

    /// <summary><c>struct open_how</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct OpenHow
    {
        internal ulong Flags;
        internal ulong Mode;
        internal ulong Resolve;
    }

    /// <summary><c>struct timespec</c>, which is also <c>struct __kernel_timespec</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct TimeSpec
    {
        internal const long NanosecondsPerSecond = 1_000_000_000;

        internal long Seconds;
        internal long Nanoseconds;

        internal static TimeSpec FromMicroseconds(long microseconds) => new()
        {
            Seconds = microseconds / 1_000_000,
            Nanoseconds = microseconds % 1_000_000 * 1000,
        };

        internal static TimeSpec FromNanoseconds(long nanoseconds) => new()
        {
            Seconds = nanoseconds / NanosecondsPerSecond,
            Nanoseconds = nanoseconds % NanosecondsPerSecond,
        };
    }

    /// <summary><c>struct futex_waitv</c>; the last word must be zero.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct FutexWaiter
    {
        internal ulong Value;
        internal ulong Address;
        internal uint Flags;
        internal uint Reserved;
    }

    /// <summary>The fields of <c>struct loop_info64</c> that are used.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 232)]
    internal struct LoopStatus
    {
        [FieldOffset(0)] internal ulong Device;
        [FieldOffset(8)] internal ulong Inode;
        [FieldOffset(24)] internal ulong Offset;
        [FieldOffset(32)] internal ulong SizeLimit;
    }

    /// <summary><c>struct fsuuid2</c>.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 17)]
    internal struct FileSystemUuid
    {
        [FieldOffset(0)] internal byte Length;
        [FieldOffset(1)] internal fixed byte Bytes[16];
    }

    /// <summary>The fields of <c>struct btrfs_ioctl_fs_info_args</c> that are used.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 1024)]
    internal struct BtrfsInfo
    {
        [FieldOffset(16)] internal fixed byte Uuid[16];
    }

    /// <summary>The fields of <c>struct btrfs_ioctl_ino_lookup_args</c> that are used.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 4096)]
    internal struct BtrfsLookUp
    {
        [FieldOffset(0)] internal ulong Tree;
        [FieldOffset(8)] internal ulong Object;
    }

    /// <summary>The fields of <c>struct loop_config</c> that are used, those of its <c>loop_info64</c> included.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 304)]
    internal struct LoopConfiguration
    {
        [FieldOffset(0)] internal uint Descriptor;
        [FieldOffset(4)] internal uint BlockBytes;
        [FieldOffset(60)] internal uint Flags;
    }
}
