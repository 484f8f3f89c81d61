using System.Runtime.InteropServices;

namespace Cbd.Exports.InFlight;

/// <summary>What has become of the request in a slot. Stored: values are fixed and only ever added to.</summary>
internal enum SlotState : uint
{
    /// <summary>No request.</summary>
    Free = 0,

    /// <summary>The kernel may store the next request here. One that is here whole is <see cref="Taken"/> for a successor.</summary>
    Receiving = 1,

    /// <summary>The request is the device's, and not answered.</summary>
    Taken = 2,

    /// <summary>The device is done, and the result is stored: it is only answered, never executed again.</summary>
    Answerable = 3,
}

/// <summary>What the request in a slot is. Stored: values are fixed and only ever added to.</summary>
internal enum SlotKind : byte
{
    /// <summary>Nothing but its message is known.</summary>
    Message = 0,
    Read = 1,
    Write = 2,
    Flush = 3,
    WriteZeroes = 5,
}

/// <summary>
/// Where what lies in an in-flight record, all little-endian: one page of header, the table of slots, the payload. Described in
/// docs/inflight.md; a field that moves needs a new <see cref="Version"/>, and a test compares the two.
/// </summary>
/// <remarks>
/// offset 0: <see cref="InFlightHeader"/>, 4096 bytes; 4096: <see cref="SlotCount"/> slots of <see cref="SlotBytes"/> bytes, each a
/// <see cref="InFlightSlot"/> of 64 bytes and 128 bytes of message; 28672: payload, whole pages.
/// </remarks>
internal static class InFlightLayout
{
    /// <summary>"CBDINFLT".</summary>
    internal const ulong Magic = 0x544C464E49444243;

    internal const uint Version = 1;

    /// <summary>Versions that this program reads.</summary>
    internal static IReadOnlyList<uint> ReadableVersions { get; } = [Version];
    internal const int HeaderBytes = 4096;

    /// <summary>Requests in flight of one queue. A loop device has 128.</summary>
    internal const int SlotCount = 128;

    internal const int SlotBytes = 192;
    internal const int MessageOffset = 64;

    /// <summary>Bytes of a message that a slot holds: the headers of a write, whose payload begins a page.</summary>
    internal const int MessageBytes = 80;

    internal const int PageBytes = 4096;
    internal const int PayloadOffset = HeaderBytes + SlotCount * SlotBytes;

    /// <summary>Payload comes in units of 64 pages.</summary>
    internal const int PayloadUnitBytes = 64 * PageBytes;

    internal const long MaxPayloadBytes = 64L << 20;
    internal const int MaxNameBytes = 104;
    internal const int MaxQueues = 256;

    /// <summary>Bytes of header that its checksum covers.</summary>
    internal const int ChecksumOffset = HeaderBytes - sizeof(uint);

    /// <summary>Size of the whole record.</summary>
    internal static long TotalBytes(long payloadBytes) => PayloadOffset + payloadBytes;
}

/// <summary>
/// The first 208 bytes of a record: what one life of an attachment is, and what was agreed upon with the kernel for all of that life. Written
/// once, before the first request. Zeroes follow, and at offset 4092 the CRC32C of all before.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = 208)]
internal struct InFlightHeader
{
    [FieldOffset(0)] internal ulong Magic;
    [FieldOffset(8)] internal uint Version;

    /// <summary>Number of the queue, 0 to <see cref="QueueCount"/> - 1.</summary>
    [FieldOffset(12)] internal uint Queue;

    /// <summary>The life that this record belongs to.</summary>
    [FieldOffset(16)] internal ulong Life;

    /// <summary>The host of the state directory.</summary>
    [FieldOffset(24)] internal Guid Host;

    [FieldOffset(40)] internal uint QueueCount;
    [FieldOffset(44)] internal uint SlotCount;
    [FieldOffset(48)] internal uint SlotBytes;
    [FieldOffset(52)] internal uint PayloadOffset;
    [FieldOffset(56)] internal ulong PayloadBytes;

    /// <summary>Longest payload of one request, bytes: the kernel's max_write.</summary>
    [FieldOffset(64)] internal uint MaxTransferBytes;

    [FieldOffset(68)] internal uint LogicalBlockBytes;

    /// <summary>1: nothing can be written.</summary>
    [FieldOffset(72)] internal uint ReadOnly;

    /// <summary>The file system's connection, as fusectl numbers it.</summary>
    [FieldOffset(76)] internal uint Connection;

    [FieldOffset(80)] internal ulong Reserved;

    /// <summary>Name of the one file, UTF-8, ended by a zero.</summary>
    [FieldOffset(88)] internal InFlightName Name;
    [FieldOffset(192)] internal ulong Reserved1;
    [FieldOffset(200)] internal ulong Reserved2;
}

/// <summary>Bytes of a name.</summary>
[System.Runtime.CompilerServices.InlineArray(InFlightLayout.MaxNameBytes)]
internal struct InFlightName
{
    private byte _first;
}

/// <summary>
/// The line of a slot. <see cref="State"/> is stored last; every other field is valid in the states that are named. One thread of one process
/// writes it.
/// </summary>
[StructLayout(LayoutKind.Explicit, Size = 64)]
internal struct InFlightSlot
{
    [FieldOffset(0)] internal SlotState State;

    /// <summary>0 or a positive errno: the result. Answerable.</summary>
    [FieldOffset(4)] internal int Error;

    /// <summary>The kernel's number of the request. Taken, Answerable.</summary>
    [FieldOffset(8)] internal ulong Unique;

    /// <summary>Grows with every request of the queue. Taken, Answerable.</summary>
    [FieldOffset(16)] internal ulong Arrival;

    /// <summary>First byte on the device. Taken, Answerable; not of a message.</summary>
    [FieldOffset(24)] internal ulong Offset;

    /// <summary>Bytes; 0 of a flush. As <see cref="Offset"/>.</summary>
    [FieldOffset(32)] internal ulong Length;

    /// <summary>The session of the backend in which the request was taken. As <see cref="Offset"/>.</summary>
    [FieldOffset(40)] internal ulong Session;

    /// <summary>First page of the payload. All states but Free.</summary>
    [FieldOffset(48)] internal uint FirstPage;

    /// <summary>Pages of the payload; of a message, and in Receiving, those that the rest of a message may take. All states but Free.</summary>
    [FieldOffset(52)] internal uint PageCount;

    /// <summary>Stored after what depends on it. Taken, Answerable.</summary>
    [FieldOffset(56)] internal SlotKind Kind;

    /// <summary>The device's flags of the request. As <see cref="Offset"/>.</summary>
    [FieldOffset(57)] internal byte Flags;

    /// <summary>Successors that have begun to execute this request again. Taken, Answerable.</summary>
    [FieldOffset(58)] internal byte Deaths;

    [FieldOffset(59)] internal byte Reserved;
    [FieldOffset(60)] internal uint Reserved1;
}
