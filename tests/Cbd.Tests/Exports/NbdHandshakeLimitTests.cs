using System.Buffers;
using System.Buffers.Binary;
using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>How much a client may send before it asks for the export: bytes in, bytes out.</summary>
public sealed class NbdHandshakeLimitTests
{
    private readonly ArrayBufferWriter<byte> _output = new();

    [Fact]
    public void One_option_more_than_a_handshake_may_have_is_refused_and_ends_it()
    {
        NbdHandshake handshake = Begin();
        for (int i = 0; i < NbdHandshake.MaxOptions; i++)
            Assert.Equal(NbdOptionReply.ErrorUnsupported, Ask(handshake, (NbdOption)0xffff));
        Assert.Equal(NbdHandshakeState.Talking, handshake.State);
        Assert.Equal(NbdOptionReply.ErrorPolicy, Ask(handshake, NbdOption.Go, 6));
        Assert.Equal(NbdHandshakeState.Ended, handshake.State);
        Assert.Contains("256 options", handshake.Failure, StringComparison.Ordinal);
    }

    [Fact]
    public void TLS_does_not_begin_the_count_anew()
    {
        NbdHandshake handshake = Begin(NbdTlsState.Offered);
        for (int i = 1; i < NbdHandshake.MaxOptions; i++)
            Ask(handshake, (NbdOption)0xffff);
        Assert.Equal(NbdOptionReply.Ack, Ask(handshake, NbdOption.StartTls));
        handshake = handshake.ContinueWithTls();
        Assert.Equal(NbdOptionReply.ErrorPolicy, Ask(handshake, NbdOption.Go, 6));
        Assert.Equal(NbdHandshakeState.Ended, handshake.State);
    }

    [Fact]
    public void The_longest_option_is_skipped_once()
    {
        NbdHandshake handshake = Begin();
        Assert.Equal(NbdOptionReply.ErrorTooBig, Ask(handshake, NbdOption.Info, NbdHandshake.MaxSkippedOptionBytes));
        Assert.Equal(NbdHandshakeState.Talking, handshake.State);
        Assert.Equal(NbdOptionReply.ErrorPolicy, Ask(handshake, NbdOption.Info, NbdHandshake.MaxSkippedOptionBytes));
        Assert.Equal(NbdHandshakeState.Ended, handshake.State);
    }

    private NbdHandshake Begin(NbdTlsState tls = NbdTlsState.None)
    {
        var info = new BlockDeviceInfo { SizeBytes = 1 << 20 };
        var handshake = new NbdHandshake(() => NbdExportInfo.Describe(info), "test", tls);
        Assert.Equal(4, handshake.Advance([0, 0, 0, 3], _output));
        return handshake;
    }

    /// <summary>Sends one option with so many zeroes and returns what it is answered with.</summary>
    private NbdOptionReply Ask(NbdHandshake handshake, NbdOption option, int length = 0)
    {
        Span<byte> header = stackalloc byte[16];
        BinaryPrimitives.WriteUInt64BigEndian(header, NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(header[8..], (uint)option);
        BinaryPrimitives.WriteInt32BigEndian(header[12..], length);
        _output.ResetWrittenCount();
        ReadOnlySpan<byte> input = [.. header, .. new byte[length]];
        while (_output.WrittenCount == 0)
        {
            int taken = handshake.Advance(input, _output);
            Assert.NotEqual(0, taken);
            input = input[taken..];
        }

        return (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(_output.WrittenSpan[12..]);
    }
}
