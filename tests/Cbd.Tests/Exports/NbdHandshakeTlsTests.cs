using System.Buffers;
using System.Buffers.Binary;
using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>STARTTLS and what is refused without it: bytes in, bytes out.</summary>
public sealed class NbdHandshakeTlsTests
{
    [Theory]
    [InlineData((int)NbdTlsState.None, (uint)NbdOptionReply.ErrorUnsupported)]
    [InlineData((int)NbdTlsState.Offered, (uint)NbdOptionReply.Ack)]
    [InlineData((int)NbdTlsState.Required, (uint)NbdOptionReply.Ack)]
    [InlineData((int)NbdTlsState.Begun, (uint)NbdOptionReply.ErrorInvalid)]
    public void Starttls_is_answered_as_the_state_of_TLS_demands(int tls, uint reply)
    {
        var expected = (NbdOptionReply)reply;
        NbdHandshake handshake = Begin((NbdTlsState)tls);
        Assert.Equal(expected, Ask(handshake, NbdOption.StartTls));
        Assert.Equal(expected == NbdOptionReply.Ack ? NbdHandshakeState.StartingTls : NbdHandshakeState.Talking, handshake.State);
    }

    [Fact]
    public void Starttls_with_data_or_without_fixed_newstyle_begins_nothing()
    {
        NbdHandshake handshake = Begin(NbdTlsState.Offered);
        Assert.Equal(NbdOptionReply.ErrorInvalid, Ask(handshake, NbdOption.StartTls, 1));
        Assert.Equal(NbdHandshakeState.Talking, handshake.State);
        NbdHandshake old = Begin(NbdTlsState.Offered, clientFlags: 0);
        Assert.Equal(NbdOptionReply.ErrorPolicy, Ask(old, NbdOption.StartTls));
        Assert.Equal(NbdHandshakeState.Talking, old.State);
    }

    [Fact]
    public void Required_every_option_but_starttls_and_abort_is_refused_and_the_handshake_goes_on()
    {
        NbdHandshake handshake = Begin(NbdTlsState.Required);
        foreach (uint option in new uint[] { 3, 4, 6, 7, 8, 9, 10, 11, 12, 0xffff })
        {
            Assert.Equal(NbdOptionReply.ErrorTlsRequired, Ask(handshake, (NbdOption)option));
            Assert.Equal(NbdOptionReply.ErrorTlsRequired, Ask(handshake, (NbdOption)option, NbdHandshake.MaxOptionBytes + 1));
        }

        Assert.Equal(NbdHandshakeState.Talking, handshake.State);
        Assert.Equal(NbdOptionReply.Ack, Ask(handshake, NbdOption.Abort));
        Assert.Equal(NbdHandshakeState.Ended, handshake.State);
    }

    [Fact]
    public void Required_a_client_that_cannot_be_told_is_disconnected()
    {
        NbdHandshake byName = Begin(NbdTlsState.Required);
        Assert.Null(Ask(byName, NbdOption.ExportName));
        Assert.Equal(NbdHandshakeState.Ended, byName.State);
        Assert.Contains("without TLS, which is required", byName.Failure, StringComparison.Ordinal);
        NbdHandshake old = Begin(NbdTlsState.Required, clientFlags: 0);
        Assert.Null(Ask(old, NbdOption.Go, 6));
        Assert.Equal(NbdHandshakeState.Ended, old.State);
    }

    [Fact]
    public void Within_TLS_flags_stay_nothing_else_does_and_nothing_needs_TLS_any_more()
    {
        NbdHandshake handshake = Begin(NbdTlsState.Offered);
        Assert.Equal(NbdOptionReply.Ack, Ask(handshake, NbdOption.StructuredReply));
        Assert.Equal(NbdOptionReply.MetaContext, Ask(handshake, NbdOption.SetMetaContext, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 15, .. "base:allocation"u8]));
        Assert.Equal(new NbdSession(true, false, true), handshake.Session);
        Assert.Equal(NbdOptionReply.Ack, Ask(handshake, NbdOption.StartTls));
        NbdHandshake inside = handshake.ContinueWithTls();
        Assert.Equal(NbdHandshakeState.Talking, inside.State);
        Assert.Equal(default, inside.Session);
        Assert.Equal(NbdOptionReply.ErrorInvalid, Ask(inside, NbdOption.StartTls));
        // NO_ZEROES was said before: ten bytes and no padding.
        var output = new ArrayBufferWriter<byte>();
        inside.Advance(Option(NbdOption.ExportName, []), output);
        Assert.Equal(10, output.WrittenCount);
        Assert.Equal(NbdHandshakeState.Transmission, inside.State);
    }

    private static NbdHandshake Begin(NbdTlsState tls, uint clientFlags = 3)
    {
        var info = new BlockDeviceInfo { SizeBytes = 1 << 20, LogicalBlockBytes = 512, PhysicalBlockBytes = 512, MaxTransferBytes = 1 << 20 };
        var handshake = new NbdHandshake(() => NbdExportInfo.Describe(info), "test", tls);
        byte[] flags = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(flags, clientFlags);
        if (tls == NbdTlsState.Begun)
        {
            handshake = new NbdHandshake(() => NbdExportInfo.Describe(info), "test", NbdTlsState.Offered);
            handshake.Advance(flags, new ArrayBufferWriter<byte>());
            return handshake.ContinueWithTls();
        }

        Assert.Equal(4, handshake.Advance(flags, new ArrayBufferWriter<byte>()));
        return handshake;
    }

    /// <summary>The first reply to an option; null if there is none.</summary>
    private static NbdOptionReply? Ask(NbdHandshake handshake, NbdOption option, int dataBytes = 0) =>
        Ask(handshake, option, new byte[dataBytes]);

    private static NbdOptionReply? Ask(NbdHandshake handshake, NbdOption option, byte[] data)
    {
        var output = new ArrayBufferWriter<byte>();
        byte[] bytes = Option(option, data);
        // One that is too long to be read is taken in parts.
        for (int taken = 0; taken < bytes.Length && handshake.State == NbdHandshakeState.Talking;)
            taken += handshake.Advance(bytes.AsSpan(taken), output);
        return output.WrittenCount == 0 ? null : (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(output.WrittenSpan[12..]);
    }

    private static byte[] Option(NbdOption option, byte[] data)
    {
        byte[] bytes = new byte[16 + data.Length];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(12), data.Length);
        data.CopyTo(bytes, 16);
        return bytes;
    }
}
