using System.Runtime.InteropServices;

namespace Cbd.Exports.Ublk;

/// <summary>
/// struct ublksrv_ctrl_dev_info: what a device is. 64 bytes, native-endian; stored by us for a new device, by the kernel
/// in its answers.
/// </summary>
/// <remarks>
/// <code>
/// offset  size  field              unit
///      0     2  Queues             count
///      2     2  QueueDepth         requests per queue
///      4     2  State              0 dead, 1 live, 2 quiesced, 3 fails I/O
///      8     4  MaxTransferBytes   bytes, payload of one request
///     12     4  Device             number
///     16     4  ProcessId          of the server since its start, or −1
///     24     8  Flags              features
///     32     8  Owner              free for the server: UblkOwner
///     40     4  OwnerUser          user id, stored by the kernel
///     44     4  OwnerGroup         group id, stored by the kernel
///     48    16  reserved
/// </code>
/// </remarks>
[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct UblkDeviceInfo
{
    [FieldOffset(0)] internal ushort Queues;
    [FieldOffset(2)] internal ushort QueueDepth;
    [FieldOffset(4)] internal ushort State;
    [FieldOffset(8)] internal uint MaxTransferBytes;
    [FieldOffset(12)] internal uint Device;
    [FieldOffset(16)] internal int ProcessId;
    [FieldOffset(24)] internal ulong Flags;
    [FieldOffset(32)] internal ulong Owner;
}
