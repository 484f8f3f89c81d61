namespace Cbd.Exports.Nbd;

/// <summary>Why a request failed; a client that takes chunks is told in words.</summary>
internal enum NbdRefusal : byte
{
    /// <summary>It was not refused; if it failed, the device did it.</summary>
    None,
    UnknownCommand,
    NotOffered,
    ReadOnly,
    UnknownFlags,
    PayloadMissing,
    PayloadUnexpected,
    NoContext,
    FlushWithRange,
    Empty,
    TooLong,
    PastEnd,
    Unaligned,
    NotFast,
}

/// <summary>The words of <see cref="NbdRefusal"/>, UTF-8, short enough for the room of a reply's header.</summary>
internal static class NbdRefusals
{
    /// <summary>Longest text, bytes.</summary>
    internal const int MaxTextBytes = 80;

    internal static ReadOnlySpan<byte> Text(NbdRefusal refusal) => refusal switch
    {
        NbdRefusal.UnknownCommand => "this command is not known here"u8,
        NbdRefusal.NotOffered => "this command was not offered for this export"u8,
        NbdRefusal.ReadOnly => "the export is read-only"u8,
        NbdRefusal.UnknownFlags => "a flag does not belong to this command or was not offered"u8,
        NbdRefusal.PayloadMissing => "a write needs a payload: set NBD_CMD_FLAG_PAYLOAD_LEN"u8,
        NbdRefusal.PayloadUnexpected => "the payload is none that this command can have"u8,
        NbdRefusal.NoContext => "no metadata context was selected: use NBD_OPT_SET_META_CONTEXT first"u8,
        NbdRefusal.FlushWithRange => "a flush must have offset 0 and length 0"u8,
        NbdRefusal.Empty => "the length is 0"u8,
        NbdRefusal.TooLong => "the length is above the maximum of 33554432 bytes: split the request"u8,
        NbdRefusal.PastEnd => "the range goes past the end of the export"u8,
        NbdRefusal.Unaligned => "offset and length must be multiples of the minimum block size"u8,
        NbdRefusal.NotFast => "zeroes are not faster than a write here: leave NBD_CMD_FLAG_FAST_ZERO out"u8,
        _ => "the device failed the request"u8,
    };
}
