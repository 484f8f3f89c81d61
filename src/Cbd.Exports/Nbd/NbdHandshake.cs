using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Cbd.Exports.Nbd;

/// <summary>How a handshake stands.</summary>
internal enum NbdHandshakeState
{
    /// <summary>More bytes of the client are needed.</summary>
    Talking,

    /// <summary>When what was written has been sent, requests follow.</summary>
    Transmission,

    /// <summary>When what was written has been sent, the connection ends.</summary>
    Ended,

    /// <summary>When what was written has been sent, TLS begins; <see cref="NbdHandshake.ContinueWithTls"/> goes on in it.</summary>
    StartingTls,
}

/// <summary>How a handshake stands to TLS.</summary>
internal enum NbdTlsState
{
    /// <summary>There is none.</summary>
    None,

    /// <summary>A client may begin it: SELECTIVETLS with no export that needs it.</summary>
    Offered,

    /// <summary>A client must begin it: FORCEDTLS.</summary>
    Required,

    /// <summary>It has begun.</summary>
    Begun,
}

/// <summary>
/// The server's side of one fixed-newstyle handshake: bytes in, bytes out, no socket and no clock. Single-threaded.
/// Options that this server does not know are answered as unsupported, so that later ones only add a case.
/// </summary>
internal sealed class NbdHandshake
{
    /// <summary>Longest option that is read; behind a longer one the connection ends.</summary>
    internal const int MaxOptionBytes = 16 << 10;

    private const int OptionHeaderBytes = 16;
    private const NbdClientFlags KnownClientFlags = NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes;

    private readonly Func<NbdExportInfo> _describe;
    private readonly string _description;
    private readonly NbdTlsState _tls;
    private bool _hasClientFlags;
    private bool _fixedNewstyle;
    private bool _noZeroes;

    internal NbdHandshake(Func<NbdExportInfo> describe, string description, NbdTlsState tls = NbdTlsState.None)
    {
        _describe = describe;
        _description = description;
        _tls = tls;
    }

    internal NbdHandshakeState State { get; private set; }

    /// <summary>Why the handshake ended without a request of the client to end it; empty otherwise.</summary>
    internal string Failure { get; private set; } = "";

    /// <summary>Writes the greeting; the first thing a client gets.</summary>
    internal static void Greet(IBufferWriter<byte> output)
    {
        Span<byte> bytes = output.GetSpan(18);
        BinaryPrimitives.WriteUInt64BigEndian(bytes, NbdProtocol.GreetingMagic);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[16..], (ushort)(NbdHandshakeFlags.FixedNewstyle | NbdHandshakeFlags.NoZeroes));
        output.Advance(18);
    }

    /// <summary>
    /// The rest of this handshake, within TLS. Nothing that was negotiated is kept, as proto.md demands; the greeting and
    /// the client's flags are not repeated.
    /// </summary>
    internal NbdHandshake ContinueWithTls() => new(_describe, _description, NbdTlsState.Begun)
    {
        _hasClientFlags = _hasClientFlags,
        _fixedNewstyle = _fixedNewstyle,
        _noZeroes = _noZeroes,
    };

    /// <summary>
    /// Takes at most one message from <paramref name="input"/> and writes the answer. Returns how many bytes it took; 0
    /// if the message is not complete.
    /// </summary>
    internal int Advance(ReadOnlySpan<byte> input, IBufferWriter<byte> output)
    {
        if (State != NbdHandshakeState.Talking)
            throw new InvalidOperationException("the handshake is over");
        if (!_hasClientFlags)
            return TakeClientFlags(input);
        if (input.Length >= 8 && BinaryPrimitives.ReadUInt64BigEndian(input) is var magic and not NbdProtocol.OptionMagic)
            return Fail($"an option begins with 0x{magic:x16} instead of IHAVEOPT");
        if (input.Length < OptionHeaderBytes)
            return 0;
        var option = (NbdOption)BinaryPrimitives.ReadUInt32BigEndian(input[8..]);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(input[12..]);
        if (length > MaxOptionBytes)
            return Fail($"option {(uint)option} has {length} bytes, more than the {MaxOptionBytes} that are read");
        if (input.Length < OptionHeaderBytes + (int)length)
            return 0;
        Answer(option, input.Slice(OptionHeaderBytes, (int)length), output);
        return OptionHeaderBytes + (int)length;
    }

    private int TakeClientFlags(ReadOnlySpan<byte> input)
    {
        if (input.Length < 4)
            return 0;
        var flags = (NbdClientFlags)BinaryPrimitives.ReadUInt32BigEndian(input);
        if ((flags & ~KnownClientFlags) != 0)
            return Fail($"the client flags 0x{(uint)flags:x8} have bits that were not offered");
        _hasClientFlags = true;
        _fixedNewstyle = (flags & NbdClientFlags.FixedNewstyle) != 0;
        _noZeroes = (flags & NbdClientFlags.NoZeroes) != 0;
        return 4;
    }

    private void Answer(NbdOption option, ReadOnlySpan<byte> data, IBufferWriter<byte> output)
    {
        if (_tls == NbdTlsState.Required && option is not (NbdOption.StartTls or NbdOption.Abort))
        {
            RefuseWithoutTls(option, output);
            return;
        }

        switch (option)
        {
            case NbdOption.ExportName:
                AnswerExportName(data, output);
                break;
            case NbdOption.Abort:
                Reply(output, option, NbdOptionReply.Ack, default);
                State = NbdHandshakeState.Ended;
                break;
            case NbdOption.List when data.Length != 0:
                Reject(output, option, NbdOptionReply.ErrorInvalid, $"LIST has {data.Length} bytes of data; it must have none");
                break;
            case NbdOption.List:
                AnswerList(output);
                break;
            case NbdOption.Info or NbdOption.Go:
                AnswerInfo(option, data, output);
                break;
            case NbdOption.StartTls:
                AnswerStartTls(data, output);
                break;
            default:
                Reject(output, option, NbdOptionReply.ErrorUnsupported, $"option {(uint)option} is not supported");
                break;
        }
    }

    private void AnswerStartTls(ReadOnlySpan<byte> data, IBufferWriter<byte> output)
    {
        const NbdOption Option = NbdOption.StartTls;
        if (_tls == NbdTlsState.None)
        {
            Reject(output, Option, NbdOptionReply.ErrorUnsupported, "this server has no TLS; connect without it, over a Unix socket or loopback");
        }
        else if (_tls == NbdTlsState.Begun)
        {
            Reject(output, Option, NbdOptionReply.ErrorInvalid, "TLS has begun already");
        }
        else if (!_fixedNewstyle)
        {
            Reject(output, Option, NbdOptionReply.ErrorPolicy, "TLS needs the client's flag for fixed newstyle");
        }
        else if (data.Length != 0)
        {
            Reject(output, Option, NbdOptionReply.ErrorInvalid, $"STARTTLS has {data.Length} bytes of data; it must have none");
        }
        else
        {
            Reply(output, Option, NbdOptionReply.Ack, default);
            State = NbdHandshakeState.StartingTls;
        }
    }

    /// <summary>
    /// Without fixed newstyle a client can neither be answered an error nor begin TLS, and EXPORT_NAME never can be.
    /// </summary>
    private void RefuseWithoutTls(NbdOption option, IBufferWriter<byte> output)
    {
        if (option == NbdOption.ExportName || !_fixedNewstyle)
            Fail($"it asked for the export without TLS, which is required (option {(uint)option})");
        else
            Reject(output, option, NbdOptionReply.ErrorTlsRequired, "this server requires TLS: begin it first, or connect with nbds:// or nbds+unix://");
    }

    private void AnswerExportName(ReadOnlySpan<byte> name, IBufferWriter<byte> output)
    {
        // This option has no way to say no.
        if (name.Length != 0)
        {
            Fail($"no export is named {Quote(name)}; the only export has the empty name");
            return;
        }

        NbdExportInfo info = _describe();
        int length = 10 + (_noZeroes ? 0 : NbdProtocol.ExportNamePaddingBytes);
        Span<byte> bytes = output.GetSpan(length)[..length];
        bytes.Clear();
        BinaryPrimitives.WriteUInt64BigEndian(bytes, info.SizeBytes);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[8..], (ushort)info.Flags);
        output.Advance(length);
        State = NbdHandshakeState.Transmission;
    }

    private void AnswerList(IBufferWriter<byte> output)
    {
        byte[] description = Encoding.UTF8.GetBytes(_description);
        byte[] data = new byte[4 + description.Length];
        description.CopyTo(data, 4);
        Reply(output, NbdOption.List, NbdOptionReply.Server, data);
        Reply(output, NbdOption.List, NbdOptionReply.Ack, default);
    }

    private void AnswerInfo(NbdOption option, ReadOnlySpan<byte> data, IBufferWriter<byte> output)
    {
        // u32 length of the name, the name, u16 number of requests, u16 each.
        uint nameLength = data.Length >= 4 ? BinaryPrimitives.ReadUInt32BigEndian(data) : 0;
        bool valid = data.Length >= 6 && nameLength <= (uint)data.Length - 6;
        ReadOnlySpan<byte> wanted = default;
        if (valid)
        {
            int count = BinaryPrimitives.ReadUInt16BigEndian(data[(4 + (int)nameLength)..]);
            wanted = data[(6 + (int)nameLength)..];
            valid = wanted.Length == 2 * count;
        }

        if (!valid)
        {
            Reject(output, option, NbdOptionReply.ErrorInvalid, $"the lengths in option {(uint)option} do not add up to its {data.Length} bytes");
            return;
        }

        if (nameLength > NbdProtocol.MaxStringBytes)
        {
            Reject(output, option, NbdOptionReply.ErrorTooBig, $"the export name has {nameLength} bytes; at most {NbdProtocol.MaxStringBytes} are allowed");
            return;
        }

        if (nameLength != 0)
        {
            Reject(output, option, NbdOptionReply.ErrorUnknown, $"no export is named {Quote(data.Slice(4, (int)nameLength))}; the only export has the empty name");
            return;
        }

        WriteInfo(option, wanted, output);
        Reply(output, option, NbdOptionReply.Ack, default);
        if (option == NbdOption.Go)
            State = NbdHandshakeState.Transmission;
    }

    private void WriteInfo(NbdOption option, ReadOnlySpan<byte> wanted, IBufferWriter<byte> output)
    {
        NbdExportInfo info = _describe();
        Span<byte> bytes = stackalloc byte[14];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, (ushort)NbdInfo.Export);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[2..], info.SizeBytes);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[10..], (ushort)info.Flags);
        Reply(output, option, NbdOptionReply.Info, bytes[..12]);

        // Block sizes are told to everybody: the smallest may be more than the byte that a client would assume.
        BinaryPrimitives.WriteUInt16BigEndian(bytes, (ushort)NbdInfo.BlockSize);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[2..], info.MinBlockBytes);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[6..], info.PreferredBlockBytes);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[10..], info.MaxBlockBytes);
        Reply(output, option, NbdOptionReply.Info, bytes);

        bool named = false;
        bool described = false;
        for (; wanted.Length >= 2; wanted = wanted[2..])
        {
            switch ((NbdInfo)BinaryPrimitives.ReadUInt16BigEndian(wanted))
            {
                case NbdInfo.Name when !named:
                    named = true;
                    Reply(output, option, NbdOptionReply.Info, [0, (byte)NbdInfo.Name]);
                    break;
                case NbdInfo.Description when !described:
                    described = true;
                    Reply(output, option, NbdOptionReply.Info, [0, (byte)NbdInfo.Description, .. Encoding.UTF8.GetBytes(_description)]);
                    break;
            }
        }
    }

    private static void Reject(IBufferWriter<byte> output, NbdOption option, NbdOptionReply reply, string message) =>
        Reply(output, option, reply, Encoding.UTF8.GetBytes(message));

    private static void Reply(IBufferWriter<byte> output, NbdOption option, NbdOptionReply reply, ReadOnlySpan<byte> data)
    {
        Span<byte> bytes = output.GetSpan(20 + data.Length);
        BinaryPrimitives.WriteUInt64BigEndian(bytes, NbdProtocol.OptionReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[8..], (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[12..], (uint)reply);
        BinaryPrimitives.WriteInt32BigEndian(bytes[16..], data.Length);
        data.CopyTo(bytes[20..]);
        output.Advance(20 + data.Length);
    }

    private int Fail(string reason)
    {
        Failure = reason;
        State = NbdHandshakeState.Ended;
        return 0;
    }

    /// <summary>A name as it can stand in a message: short, and without control characters.</summary>
    private static string Quote(ReadOnlySpan<byte> name)
    {
        var text = new StringBuilder("'");
        foreach (Rune rune in Encoding.UTF8.GetString(name[..Math.Min(name.Length, 64)]).EnumerateRunes())
            text.Append(Rune.IsControl(rune) ? "?" : rune.ToString());
        return text.Append(name.Length > 64 ? "…'" : "'").ToString();
    }
}
