using System.Runtime.InteropServices;

namespace Cbd.Exports.Ublk;

/// <summary>
/// struct ublksrv_io_desc: one request, at the place of its tag in the mapped descriptors of its queue. 24 bytes,
/// native-endian, stored by the kernel before the fetch of that tag completes.
/// </summary>
/// <remarks>
/// <code>
/// offset  size  field            unit
///      0     4  OperationFlags   operation in the low byte, flags above
///      4     4  Sectors          sectors of 512 bytes
///      8     8  StartSector      sectors of 512 bytes
///     16     8  Address          the buffer that was given with the fetch; not used
/// </code>
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
internal struct UblkIoDescriptor
{
    internal uint OperationFlags;
    internal uint Sectors;
    internal ulong StartSector;
    internal ulong Address;
}
