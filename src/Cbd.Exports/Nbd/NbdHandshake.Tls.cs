using System.Buffers;

namespace Cbd.Exports.Nbd;

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

/// <content>STARTTLS, and what is refused without it.</content>
internal sealed partial class NbdHandshake
{
    /// <summary>
    /// The rest of this handshake, within TLS. Nothing that was negotiated is kept, as proto.md demands; the greeting and
    /// the client's flags are not repeated.
    /// </summary>
    internal NbdHandshake ContinueWithTls() => new(_describe, _description, NbdTlsState.Begun)
    {
        _hasClientFlags = _hasClientFlags,
        _fixedNewstyle = _fixedNewstyle,
        _noZeroes = _noZeroes,
        _options = _options,
        _takenBytes = _takenBytes,
    };

    private bool NeedsTls(NbdOption option) => _tls == NbdTlsState.Required && option is not (NbdOption.StartTls or NbdOption.Abort);

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
}
