using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>What an inode is.</summary>
public enum FileType
{
    Other = 0,
    Fifo = 1,
    CharacterDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    SymbolicLink = 10,
    Socket = 12,
}

/// <summary>
/// What statx(2) tells of an open file. <paramref name="DeviceMajor"/> and <paramref name="DeviceMinor"/> are those of
/// the file system it lies on, <paramref name="NodeMajor"/> and <paramref name="NodeMinor"/> those of the device that
/// it is, if it is one.
/// </summary>
public readonly record struct FileStatus(
    FileType Type, uint Mode, uint UserId, uint GroupId, ulong Inode, long SizeBytes, long AllocatedBytes,
    int PreferredBlockBytes, uint DeviceMajor, uint DeviceMinor, uint NodeMajor, uint NodeMinor, bool IsDax)
{
    // struct statx of linux/stat.h: the same on every architecture, unlike struct stat.
    internal const int StatxBytes = 256;
    internal const uint StatxBasicStats = 0x7ff;
    internal const ulong StatxAttributeDax = 0x00200000;
    internal const int BlockSizeOffset = 4;
    internal const int AttributesOffset = 8;
    internal const int UserIdOffset = 20;
    internal const int GroupIdOffset = 24;
    internal const int ModeOffset = 28;
    internal const int InodeOffset = 32;
    internal const int SizeOffset = 40;
    internal const int BlocksOffset = 48;
    internal const int NodeMajorOffset = 128;
    internal const int NodeMinorOffset = 132;
    internal const int DeviceMajorOffset = 136;
    internal const int DeviceMinorOffset = 140;

    /// <summary>The device number as dev_t: the encoding of glibc's makedev.</summary>
    public ulong Device => MakeDevice(DeviceMajor, DeviceMinor);

    /// <summary>Status of what a path names, links followed; null if there is nothing.</summary>
    public static unsafe FileStatus? TryGet(string path)
    {
        byte* result = stackalloc byte[StatxBytes];
        if (LibC.Statx(KernelConstants.AtFdCwd, path, 0, StatxBasicStats, result) < 0)
        {
            int error = Marshal.GetLastPInvokeError();
            return error == KernelConstants.ENOENT ? null : throw new SystemCallException("statx", error, path);
        }

        // SAFETY: the kernel filled the 256 bytes that were reserved above.
        return Parse(new ReadOnlySpan<byte>(result, StatxBytes));
    }

    private static ulong MakeDevice(uint major, uint minor) =>
        ((ulong)(major & 0xfffff000) << 32) | ((major & 0xfffUL) << 8) | ((ulong)(minor & 0xffffff00) << 12) | (minor & 0xffUL);

    internal static FileStatus Parse(ReadOnlySpan<byte> statx)
    {
        ushort mode = BinaryPrimitives.ReadUInt16LittleEndian(statx[ModeOffset..]);
        return new FileStatus(
            (FileType)(mode >> 12),
            mode & 0xfffu,
            Word(statx, UserIdOffset),
            Word(statx, GroupIdOffset),
            BinaryPrimitives.ReadUInt64LittleEndian(statx[InodeOffset..]),
            BinaryPrimitives.ReadInt64LittleEndian(statx[SizeOffset..]),
            BinaryPrimitives.ReadInt64LittleEndian(statx[BlocksOffset..]) * 512,
            (int)Word(statx, BlockSizeOffset),
            Word(statx, DeviceMajorOffset),
            Word(statx, DeviceMinorOffset),
            Word(statx, NodeMajorOffset),
            Word(statx, NodeMinorOffset),
            (BinaryPrimitives.ReadUInt64LittleEndian(statx[AttributesOffset..]) & StatxAttributeDax) != 0);
    }

    private static uint Word(ReadOnlySpan<byte> statx, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(statx[offset..]);
}
