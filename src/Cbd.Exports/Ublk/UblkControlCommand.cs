using System.Runtime.InteropServices;

namespace Cbd.Exports.Ublk;

/// <summary>
/// struct ublksrv_ctrl_cmd: the argument of a command for /dev/ublk-control. 32 bytes, native-endian, stored by us.
/// </summary>
/// <remarks>
/// <code>
/// offset  size  field          unit
///      0     4  Device         number; AnyDevice: the kernel chooses
///      4     2  Queue          NoQueue
///      6     2  BufferBytes    bytes at Buffer
///      8     8  Buffer         address of what the command reads or stores
///     16     8  Value          the command's number: process id, size in sectors
///     24     2  PathBytes      0 (for unprivileged devices)
///     26     6  reserved       0
/// </code>
/// </remarks>
[StructLayout(LayoutKind.Explicit, Size = 32)]
internal struct UblkControlCommand
{
    [FieldOffset(0)] internal uint Device;
    [FieldOffset(4)] internal ushort Queue;
    [FieldOffset(6)] internal ushort BufferBytes;
    [FieldOffset(8)] internal ulong Buffer;
    [FieldOffset(16)] internal ulong Value;
}
