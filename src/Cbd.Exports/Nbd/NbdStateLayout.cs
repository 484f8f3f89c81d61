using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Cbd.Exports.Nbd;

/// <summary>What was negotiated on a connection. Stored: values are fixed and only ever added to.</summary>
[Flags]
internal enum NbdStateSession : uint
{
    None = 0,
    StructuredReplies = 1,
    ExtendedHeaders = 2,

    /// <summary>base:allocation, under the number 1.</summary>
    Allocation = 4,
}

/// <summary>
/// Where what lies in the state of a connection that is handed over, all little-endian: one page of header, then what was received and not begun.
/// Described in docs/inflight.md; a field that moves needs a new <see cref="Version"/>, and a test compares the two.
/// </summary>
internal static class NbdStateLayout
{
    /// <summary>"CBDNBDCO".</summary>
    internal const ulong Magic = 0x4F4344424E444243;

    internal const uint Version = 1;

    /// <summary>Versions that this program reads.</summary>
    internal static IReadOnlyList<uint> ReadableVersions { get; } = [Version];
    internal const int HeaderBytes = 4096;

    /// <summary>Bytes of header that its checksum covers.</summary>
    internal const int ChecksumOffset = HeaderBytes - sizeof(uint);
    internal const int MaxNameBytes = 64;
    internal const int MaxTotalBytes = HeaderBytes + ((NbdConnection.MaxUntakenBytes + PageBytes - 1) / PageBytes * PageBytes);
    private const int PageBytes = 4096;

    /// <summary>Size of the whole state.</summary>
    internal static int TotalBytes(int inputBytes) => HeaderBytes + ((inputBytes + PageBytes - 1) / PageBytes * PageBytes);
}

/// <summary>The first bytes of a state. Zeroes follow, and at offset 4092 the CRC32C of all before.</summary>
[StructLayout(LayoutKind.Explicit, Size = 152)]
internal struct NbdStateHeader
{
    [FieldOffset(0)] internal ulong Magic;
    [FieldOffset(8)] internal uint Version;
    [FieldOffset(12)] internal NbdStateSession Session;

    /// <summary>The kernel's number of the socket; 0 if it told none.</summary>
    [FieldOffset(16)] internal ulong SocketCookie;

    /// <summary>Number of the client in its export, for messages.</summary>
    [FieldOffset(24)] internal ulong Client;

    /// <summary>What the client was told of the device: size, block sizes, flags.</summary>
    [FieldOffset(32)] internal ulong SizeBytes;
    [FieldOffset(40)] internal uint MinBlockBytes;
    [FieldOffset(44)] internal uint PreferredBlockBytes;
    [FieldOffset(48)] internal uint MaxBlockBytes;
    [FieldOffset(52)] internal ushort TransmissionFlags;

    /// <summary>The client's flags of the handshake.</summary>
    [FieldOffset(54)] internal ushort ClientFlags;

    /// <summary>Bytes that were received and not begun, and their CRC32C. They begin with a request.</summary>
    [FieldOffset(56)] internal uint InputBytes;
    [FieldOffset(60)] internal uint InputChecksum;
    [FieldOffset(64)] internal ushort DeviceNameBytes;

    /// <summary>Of the export that the client chose; 0 in this version.</summary>
    [FieldOffset(66)] internal ushort ExportNameBytes;
    [FieldOffset(68)] internal uint Reserved;

    /// <summary>Name of the device, ASCII, zero-padded.</summary>
    [FieldOffset(72)] internal NbdStateName DeviceName;

    /// <summary>Of the device: with another one, writes that were acknowledged and not flushed may be lost.</summary>
    [FieldOffset(136)] internal Guid DurabilityId;
}

/// <summary>Bytes of a name.</summary>
[InlineArray(NbdStateLayout.MaxNameBytes)]
internal struct NbdStateName
{
    private byte _first;
}
