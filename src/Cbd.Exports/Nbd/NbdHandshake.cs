using System.Buffers;
using System.Buffers.Binary;

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

/// <summary>
/// The server's side of one fixed-newstyle handshake: bytes in, bytes out, no socket and no clock. Single-threaded.
/// Options that this server does not know are answered as unsupported, so that later ones only add a case. Options too
/// long to be read are skipped and refused.
/// </summary>
internal sealed partial class NbdHandshake
{
    /// <summary>Longest option that is read; a longer one is skipped.</summary>
    internal const int MaxOptionBytes = 16 << 10;

    /// <summary>Longest option that is skipped; a longer one ends the connection.</summary>
    internal const int MaxSkippedOptionBytes = 32 << 20;

    /// <summary>Most options of one handshake, those before TLS included; clients send about ten.</summary>
    internal const int MaxOptions = 256;

    /// <summary>Most bytes of one handshake: the longest option that is skipped, and some that are read.</summary>
    internal const int MaxBytes = MaxSkippedOptionBytes + (1 << 20);

    private const int OptionHeaderBytes = 16;
    private const NbdClientFlags KnownClientFlags = NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes;

    private readonly Func<NbdExportInfo> _describe;
    private readonly string _description;
    private readonly NbdTlsState _tls;
    private bool _hasClientFlags;
    private bool _fixedNewstyle;
    private bool _noZeroes;
    private NbdSession _session;
    private NbdOption _skipped;
    private uint _skipBytes;
    private int _options;
    private long _takenBytes;

    internal NbdHandshake(Func<NbdExportInfo> describe, string description, NbdTlsState tls = NbdTlsState.None)
    {
        _describe = describe;
        _description = description;
        _tls = tls;
    }

    internal NbdHandshakeState State { get; private set; }

    /// <summary>What was negotiated so far.</summary>
    internal NbdSession Session => _session;

    /// <summary>What the client was told of the device last.</summary>
    internal NbdExportInfo Told { get; private set; }

    /// <summary>What the client sent first.</summary>
    internal NbdClientFlags ClientFlags =>
        (_fixedNewstyle ? NbdClientFlags.FixedNewstyle : 0) | (_noZeroes ? NbdClientFlags.NoZeroes : 0);

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
    /// Takes at most one message from <paramref name="input"/> and writes the answer; of one that is too long to be read,
    /// what is there. Returns how many bytes it took; 0 if the message is not complete.
    /// </summary>
    internal int Advance(ReadOnlySpan<byte> input, IBufferWriter<byte> output)
    {
        if (State != NbdHandshakeState.Talking)
            throw new InvalidOperationException("the handshake is over");
        int taken = Take(input, output);
        _takenBytes += taken;
        return taken;
    }

    private int Take(ReadOnlySpan<byte> input, IBufferWriter<byte> output)
    {
        if (!_hasClientFlags)
            return TakeClientFlags(input);
        if (_skipBytes != 0)
            return Skip(input, output);
        if (input.Length >= 8 && BinaryPrimitives.ReadUInt64BigEndian(input) is var magic and not NbdProtocol.OptionMagic)
            return Fail($"an option begins with 0x{magic:x16} instead of IHAVEOPT");
        if (input.Length < OptionHeaderBytes)
            return 0;
        var option = (NbdOption)BinaryPrimitives.ReadUInt32BigEndian(input[8..]);
        uint length = BinaryPrimitives.ReadUInt32BigEndian(input[12..]);
        if (_options == MaxOptions || (length <= MaxSkippedOptionBytes && _takenBytes + OptionHeaderBytes + length > MaxBytes))
            return FailByPolicy(option, output);
        if (length > MaxOptionBytes)
            return BeginSkip(option, length);
        if (input.Length < OptionHeaderBytes + (int)length)
            return 0;
        _options++;
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

    /// <summary>An answer comes when all of the option is there: until then the client may be busy with sending.</summary>
    private int BeginSkip(NbdOption option, uint length)
    {
        // An export's name has no way to be refused.
        if (option == NbdOption.ExportName || length > MaxSkippedOptionBytes)
            return Fail($"option {(uint)option} has {length} bytes, more than the {MaxOptionBytes} that are read");
        _options++;
        _skipped = option;
        _skipBytes = length;
        return OptionHeaderBytes;
    }

    private int Skip(ReadOnlySpan<byte> input, IBufferWriter<byte> output)
    {
        int count = (int)Math.Min((uint)input.Length, _skipBytes);
        _skipBytes -= (uint)count;
        if (_skipBytes != 0)
            return count;
        // What an abort carries does not matter.
        if (_skipped == NbdOption.Abort)
            Answer(_skipped, default, output);
        else if (NeedsTls(_skipped))
            RefuseWithoutTls(_skipped, output);
        else if (IsKnown(_skipped))
            Reject(output, _skipped, NbdOptionReply.ErrorTooBig, $"option {(uint)_skipped} is longer than {MaxOptionBytes} bytes");
        else
            RejectUnknown(output, _skipped);
        if (_skipped == NbdOption.SetMetaContext)
            _session = _session with { HasAllocation = false };
        return count;
    }

    private static bool IsKnown(NbdOption option) => option is
        NbdOption.List or NbdOption.StartTls or NbdOption.Info or NbdOption.Go or NbdOption.StructuredReply or
        NbdOption.ListMetaContext or NbdOption.SetMetaContext or NbdOption.ExtendedHeaders;

    private void Answer(NbdOption option, ReadOnlySpan<byte> data, IBufferWriter<byte> output)
    {
        if (NeedsTls(option))
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
            case NbdOption.List or NbdOption.StructuredReply or NbdOption.ExtendedHeaders when data.Length != 0:
                Reject(output, option, NbdOptionReply.ErrorInvalid, $"option {(uint)option} has {data.Length} bytes of data; it must have none");
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
            case NbdOption.StructuredReply when _session.ExtendedHeaders:
                Reject(output, option, NbdOptionReply.ErrorExtendedHeadersRequired, "extended headers were negotiated already and go before structured replies");
                break;
            case NbdOption.StructuredReply:
                _session = _session with { StructuredReplies = true };
                Reply(output, option, NbdOptionReply.Ack, default);
                break;
            case NbdOption.ExtendedHeaders:
                _session = _session with { ExtendedHeaders = true };
                Reply(output, option, NbdOptionReply.Ack, default);
                break;
            case NbdOption.ListMetaContext or NbdOption.SetMetaContext:
                AnswerContexts(option, data, output);
                break;
            default:
                RejectUnknown(output, option);
                break;
        }
    }

    private static void RejectUnknown(IBufferWriter<byte> output, NbdOption option) =>
        Reject(output, option, NbdOptionReply.ErrorUnsupported, $"option {(uint)option} is not supported");

    /// <summary>The client has had its share; it is told so where it can be.</summary>
    private int FailByPolicy(NbdOption option, IBufferWriter<byte> output)
    {
        string reason = $"a handshake has at most {MaxOptions} options and {MaxBytes} bytes";
        if (option != NbdOption.ExportName)
            Reject(output, option, NbdOptionReply.ErrorPolicy, reason);
        _ = Fail($"{reason}; option {(uint)option} is one too many");
        // Not 0: the answer is sent before the connection ends.
        return OptionHeaderBytes;
    }

    private int Fail(string reason)
    {
        Failure = reason;
        State = NbdHandshakeState.Ended;
        return 0;
    }
}
