using System.Runtime.InteropServices;

namespace Cbd.Exports.Ublk;

/// <summary>
/// struct ublksrv_io_cmd: the argument of a command for /dev/ublkcN, which answers a request (commit) and asks for the
/// next one of that tag (fetch). 16 bytes, native-endian, stored by us.
/// </summary>
/// <remarks>
/// <code>
/// offset  size  field     unit
///      0     2  Queue     number
///      2     2  Tag       number of the request in its queue
///      4     4  Result    bytes of a read or write, 0, or a negative errno
///      8     8  Address   of the payload's private buffer, for this answer and for the next request
/// </code>
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
internal struct UblkIoCommand
{
    internal ushort Queue;
    internal ushort Tag;
    internal int Result;
    internal ulong Address;
}
