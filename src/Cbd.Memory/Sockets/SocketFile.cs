using System.Runtime.InteropServices;
using System.Text;

namespace Cbd.Memory.Sockets;

/// <summary>Which file a path names: its type and its identity on this machine.</summary>
public readonly record struct SocketFile(bool IsSocket, ulong Inode, uint DeviceMajor, uint DeviceMinor)
{
    /// <summary>Looks at a path without following a link; false and the errno if it cannot.</summary>
    public static unsafe bool TryStat(string path, out SocketFile file, out int error)
    {
        // struct statx of linux/stat.h, the same on all machines: offset 28 u16 mode, 32 u64 inode, 136 u32 device
        // major, 140 u32 device minor; 256 bytes.
        byte* buffer = stackalloc byte[256];
        byte[] name = Encoding.UTF8.GetBytes(path + '\0');
        int result;
        // SAFETY: the name ends with a zero byte; the buffer has the size of the structure.
        fixed (byte* start = name)
            result = SocketCalls.StatX(SocketCalls.AT_FDCWD, start, SocketCalls.AT_SYMLINK_NOFOLLOW, SocketCalls.STATX_TYPE | SocketCalls.STATX_INO, buffer);
        error = result == 0 ? 0 : Marshal.GetLastPInvokeError();
        if (result != 0)
        {
            file = default;
            return false;
        }

        var bytes = new ReadOnlySpan<byte>(buffer, 256);
        ushort mode = MemoryMarshal.Read<ushort>(bytes[28..]);
        file = new SocketFile(
            (mode & 0xF000) == 0xC000,
            MemoryMarshal.Read<ulong>(bytes[32..]),
            MemoryMarshal.Read<uint>(bytes[136..]),
            MemoryMarshal.Read<uint>(bytes[140..]));
        return true;
    }

    /// <summary>Removes a name; returns 0 or the errno.</summary>
    public static unsafe int Unlink(string path)
    {
        byte[] name = Encoding.UTF8.GetBytes(path + '\0');
        // SAFETY: the name ends with a zero byte.
        fixed (byte* start = name)
            return SocketCalls.Unlink(start) == 0 ? 0 : Marshal.GetLastPInvokeError();
    }
}
