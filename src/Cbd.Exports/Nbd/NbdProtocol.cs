namespace Cbd.Exports.Nbd;

/// <summary>
/// The numbers of the NBD protocol (doc/proto.md of the Network Block Device project; extended headers: its branch
/// extension-ext-header). Everything on the wire is big-endian.
/// </summary>
internal static class NbdProtocol
{
    /// <summary>First word of the server, "NBDMAGIC".</summary>
    internal const ulong GreetingMagic = 0x4e42444d41474943;

    /// <summary>Second word of the server and first of every option, "IHAVEOPT".</summary>
    internal const ulong OptionMagic = 0x49484156454F5054;

    internal const ulong OptionReplyMagic = 0x0003e889045565a9;
    internal const uint RequestMagic = 0x25609513;
    internal const uint SimpleReplyMagic = 0x67446698;
    internal const uint StructuredReplyMagic = 0x668e33ef;
    internal const uint ExtendedRequestMagic = 0x21e41c71;
    internal const uint ExtendedReplyMagic = 0x6e8a278c;

    /// <summary>Bytes of a request without its payload.</summary>
    internal const int RequestBytes = 28;

    /// <summary>Bytes of a request without its payload, where extended headers were negotiated.</summary>
    internal const int ExtendedRequestBytes = 32;

    /// <summary>Bytes of a simple reply without its payload.</summary>
    internal const int SimpleReplyBytes = 16;

    /// <summary>Bytes of a chunk of a structured reply without its payload.</summary>
    internal const int StructuredReplyBytes = 20;

    /// <summary>Bytes of a chunk of an extended reply without its payload.</summary>
    internal const int ExtendedReplyBytes = 32;

    /// <summary>Zeroes after an answer to EXPORT_NAME, unless the client does without them.</summary>
    internal const int ExportNamePaddingBytes = 124;

    /// <summary>Longest string that the protocol allows.</summary>
    internal const int MaxStringBytes = 4096;
}

/// <summary>What a server says it can do during the handshake; u16.</summary>
[Flags]
internal enum NbdHandshakeFlags : ushort
{
    FixedNewstyle = 1,
    NoZeroes = 2,
}

/// <summary>What a client answers to <see cref="NbdHandshakeFlags"/>; u32.</summary>
[Flags]
internal enum NbdClientFlags : uint
{
    FixedNewstyle = 1,
    NoZeroes = 2,
}

/// <summary>What an export can do; u16.</summary>
[Flags]
internal enum NbdTransmissionFlags : ushort
{
    HasFlags = 1 << 0,
    ReadOnly = 1 << 1,
    SendFlush = 1 << 2,
    SendFua = 1 << 3,
    Rotational = 1 << 4,
    SendTrim = 1 << 5,
    SendWriteZeroes = 1 << 6,
    SendDontFragment = 1 << 7,
    CanMultiConn = 1 << 8,
    SendCache = 1 << 10,
    SendFastZero = 1 << 11,
    BlockStatusPayload = 1 << 12,
}

/// <summary>What a client asks for during the handshake; u32.</summary>
internal enum NbdOption : uint
{
    ExportName = 1,
    Abort = 2,
    List = 3,
    StartTls = 5,
    Info = 6,
    Go = 7,
    StructuredReply = 8,
    ListMetaContext = 9,
    SetMetaContext = 10,
    ExtendedHeaders = 11,
}

/// <summary>What a server answers to an option; u32.</summary>
internal enum NbdOptionReply : uint
{
    Ack = 1,
    Server = 2,
    Info = 3,
    MetaContext = 4,
    ErrorUnsupported = 0x8000_0001,
    ErrorPolicy = 0x8000_0002,
    ErrorInvalid = 0x8000_0003,
    ErrorTlsRequired = 0x8000_0005,
    ErrorUnknown = 0x8000_0006,
    ErrorShutdown = 0x8000_0007,
    ErrorTooBig = 0x8000_0009,
    ErrorExtendedHeadersRequired = 0x8000_000a,
}

/// <summary>What an answer of kind INFO tells; u16.</summary>
internal enum NbdInfo : ushort
{
    Export = 0,
    Name = 1,
    Description = 2,
    BlockSize = 3,
}

/// <summary>What a request does; u16.</summary>
internal enum NbdCommand : ushort
{
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    Trim = 4,
    Cache = 5,
    WriteZeroes = 6,
    BlockStatus = 7,
}

/// <summary>How a request is done; u16.</summary>
[Flags]
internal enum NbdCommandFlags : ushort
{
    None = 0,
    ForceUnitAccess = 1 << 0,
    NoHole = 1 << 1,
    DontFragment = 1 << 2,
    OneExtent = 1 << 3,
    FastZero = 1 << 4,

    /// <summary>Extended headers only: the length is that of the payload that follows.</summary>
    PayloadLength = 1 << 5,
}

/// <summary>What a chunk of a structured or extended reply carries; u16.</summary>
internal enum NbdChunk : ushort
{
    None = 0,
    OffsetData = 1,
    OffsetHole = 2,
    BlockStatus = 5,
    BlockStatusExtended = 6,
    Error = 0x8001,
}

/// <summary>The errors that a reply can carry; u32.</summary>
internal enum NbdError : uint
{
    None = 0,
    NotPermitted = 1,
    Io = 5,
    NoMemory = 12,
    Invalid = 22,
    NoSpace = 28,
    Overflow = 75,
    NotSupported = 95,
    Shutdown = 108,
}
