using System.Buffers.Binary;
using System.Text;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Structured replies, extended headers and metadata contexts in the handshake.</summary>
public sealed class NbdNegotiationTests : IDisposable
{
    private readonly NbdTestServer _server = new(TestDevice.OfSize(1 << 20));

    public void Dispose() => _server.Dispose();

    private NbdTestClient Greeted()
    {
        var client = new NbdTestClient(_server.Path);
        client.Greet();
        return client;
    }

    private static NbdTransmissionFlags Flags(NbdTestClient client, NbdOption option)
    {
        client.SendOption(option, [0, 0, 0, 0, 0, 0]);
        NbdTransmissionFlags flags = 0;
        while (true)
        {
            (_, NbdOptionReply reply, byte[] data) = client.ReadOptionReply();
            if (reply == NbdOptionReply.Ack)
                return flags;
            Assert.Equal(NbdOptionReply.Info, reply);
            if (BinaryPrimitives.ReadUInt16BigEndian(data) == (ushort)NbdInfo.Export)
                flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(10));
        }
    }

    private static (NbdOptionReply Reply, string Message) Send(NbdTestClient client, NbdOption option, ReadOnlySpan<byte> data)
    {
        client.SendOption(option, data);
        (NbdOption answered, NbdOptionReply reply, byte[] message) = client.ReadOptionReply();
        Assert.Equal(option, answered);
        return (reply, Encoding.UTF8.GetString(message));
    }

    [Fact]
    public void Flags_of_what_was_not_negotiated_are_not_offered()
    {
        const NbdTransmissionFlags Negotiated = NbdTransmissionFlags.SendDontFragment | NbdTransmissionFlags.BlockStatusPayload;
        using NbdTestClient client = Greeted();
        Assert.Equal((NbdTransmissionFlags)0, Flags(client, NbdOption.Info) & Negotiated);
        client.Negotiate(new NbdSession(StructuredReplies: true, false, false));
        Assert.Equal(NbdTransmissionFlags.SendDontFragment, Flags(client, NbdOption.Info) & Negotiated);
        client.Negotiate(new NbdSession(false, ExtendedHeaders: true, false));
        Assert.Equal(NbdTransmissionFlags.SendDontFragment, Flags(client, NbdOption.Info) & Negotiated);
        client.Negotiate(new NbdSession(false, false, HasAllocation: true));
        Assert.Equal(Negotiated, Flags(client, NbdOption.Info) & Negotiated);
        Assert.Equal(Negotiated, Flags(client, NbdOption.Go) & Negotiated);
    }

    [Fact]
    public void Extended_headers_need_no_structured_replies_and_go_before_them()
    {
        using NbdTestClient client = Greeted();
        client.Acknowledged(NbdOption.ExtendedHeaders, []);
        Assert.Equal(NbdOptionReply.ErrorExtendedHeadersRequired, Send(client, NbdOption.StructuredReply, []).Reply);
        Assert.NotEqual((NbdTransmissionFlags)0, Flags(client, NbdOption.Go) & NbdTransmissionFlags.SendDontFragment);
    }

    [Fact]
    public void Export_name_serves_structured_replies_but_ends_a_client_with_extended_headers()
    {
        using (NbdTestClient client = Greeted())
        {
            client.Negotiate(new NbdSession(true, false, true));
            client.SendOption(NbdOption.ExportName, []);
            var flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(client.Read(10).AsSpan(8));
            Assert.NotEqual((NbdTransmissionFlags)0, flags & NbdTransmissionFlags.SendDontFragment);
            Assert.Equal(NbdChunk.BlockStatus, client.Ask(NbdCommand.BlockStatus, 0, 4096).Type);
        }

        using NbdTestClient extended = Greeted();
        extended.Acknowledged(NbdOption.ExtendedHeaders, []);
        extended.SendOption(NbdOption.ExportName, []);
        extended.ReadToEnd();
        NbdTestServer.Until(() => _server.Log.Contains("instead of GO", StringComparison.Ordinal), "the log says why");
    }

    [Fact]
    public void Contexts_need_replies_in_chunks()
    {
        using NbdTestClient client = Greeted();
        byte[] query = NbdTestClient.ContextQuery("", "base:allocation");
        Assert.Equal(NbdOptionReply.ErrorInvalid, Send(client, NbdOption.ListMetaContext, query).Reply);
        Assert.Equal(NbdOptionReply.ErrorInvalid, Send(client, NbdOption.SetMetaContext, query).Reply);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Queries_list_and_select_the_one_context(bool extended)
    {
        using NbdTestClient client = Greeted();
        client.Negotiate(new NbdSession(!extended, extended, false));
        foreach (string[] queries in new string[][] { [], ["base:"], ["base:allocation"], ["x-a:b", "base:", "base:allocation", "base:allocation"] })
            Assert.Equal(["base:allocation"], client.Contexts(NbdOption.ListMetaContext, queries));
        foreach (string[] queries in new string[][] { ["base:other"], ["qemu:allocation-depth", "x-y:"], ["Base:allocation"], ["base:allocation "] })
            Assert.Empty(client.Contexts(NbdOption.ListMetaContext, queries));
        foreach (string[] queries in new string[][] { [], ["base:"], ["base:other", "qemu:"] })
            Assert.Empty(client.Contexts(NbdOption.SetMetaContext, queries));
        Assert.Equal(["base:allocation"], client.Contexts(NbdOption.SetMetaContext, "x-y:z", "base:allocation", "base:allocation"));
    }

    [Fact]
    public void A_selected_context_has_a_number_and_a_listed_one_has_none()
    {
        using NbdTestClient client = Greeted();
        client.Negotiate(new NbdSession(true, false, false));
        client.SendOption(NbdOption.ListMetaContext, NbdTestClient.ContextQuery(""));
        Assert.Equal([0, 0, 0, 0, .. "base:allocation"u8], client.ReadOptionReply().Data);
        Assert.Equal(NbdOptionReply.Ack, client.ReadOptionReply().Reply);
        client.SendOption(NbdOption.SetMetaContext, NbdTestClient.ContextQuery("", "base:allocation"));
        Assert.Equal([0, 0, 0, 1, .. "base:allocation"u8], client.ReadOptionReply().Data);
        Assert.Equal(NbdOptionReply.Ack, client.ReadOptionReply().Reply);
    }

    [Theory]
    [InlineData(new byte[] { 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0, 0, 0, 9, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 1 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 255, 255, 255, 255 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 5, 97, 58, 98 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255, 97, 58, 98 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 0, 0 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 97, 98, 99 })]
    [InlineData(new byte[] { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 58, 99 })]
    public void A_malformed_query_is_invalid_and_has_forgotten_the_selection(byte[] data)
    {
        using NbdTestClient client = Greeted();
        client.Negotiate(new NbdSession(true, false, true));
        Assert.Equal(NbdOptionReply.ErrorInvalid, Send(client, NbdOption.ListMetaContext, data).Reply);
        Assert.Equal(NbdOptionReply.ErrorInvalid, Send(client, NbdOption.SetMetaContext, data).Reply);
        Flags(client, NbdOption.Go);
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, 4096));
    }

    [Fact]
    public void A_listing_leaves_the_selection_alone()
    {
        using NbdTestClient client = Greeted();
        client.Negotiate(new NbdSession(true, false, true));
        Assert.Empty(client.Contexts(NbdOption.ListMetaContext, "qemu:"));
        Flags(client, NbdOption.Go);
        Assert.Equal(NbdChunk.BlockStatus, client.Ask(NbdCommand.BlockStatus, 0, 4096).Type);
    }

    [Fact]
    public void Contexts_of_an_export_that_does_not_exist_and_texts_that_are_too_long_are_refused()
    {
        using NbdTestClient client = Greeted();
        client.Negotiate(new NbdSession(true, false, false));
        Assert.Equal(NbdOptionReply.ErrorUnknown, Send(client, NbdOption.SetMetaContext, NbdTestClient.ContextQuery("other", "base:allocation")).Reply);
        Assert.Equal(NbdOptionReply.ErrorTooBig, Send(client, NbdOption.SetMetaContext, NbdTestClient.ContextQuery("", "x:" + new string('y', 4095))).Reply);
        Assert.Empty(client.Contexts(NbdOption.SetMetaContext, "x:" + new string('y', 4094)));
        Assert.Equal(NbdOptionReply.ErrorTooBig, Send(client, NbdOption.Go, [0, 0, 16, 1, .. new byte[4097], 0, 0]).Reply);
    }

    [Fact]
    public void A_long_option_is_skipped_and_the_next_one_is_read()
    {
        using NbdTestClient client = Greeted();
        client.Negotiate(new NbdSession(true, false, true));
        Assert.Equal(NbdOptionReply.ErrorTooBig, Send(client, NbdOption.SetMetaContext, new byte[NbdHandshake.MaxOptionBytes + 1]).Reply);
        Assert.Equal(NbdOptionReply.ErrorUnsupported, Send(client, (NbdOption)77, new byte[4 << 20]).Reply);
        Flags(client, NbdOption.Go);
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, 4096));
    }

    [Fact]
    public void An_abort_is_acknowledged_whatever_it_carries()
    {
        using NbdTestClient client = Greeted();
        client.Acknowledged(NbdOption.Abort, new byte[100_000]);
        client.ReadToEnd();
    }

    [Fact]
    public void An_export_name_longer_than_can_be_read_ends_the_connection()
    {
        using NbdTestClient client = Greeted();
        client.SendOption(NbdOption.ExportName, [], length: NbdHandshake.MaxOptionBytes + 1);
        client.ReadToEnd();
        Assert.Contains("option 1 has 16385 bytes", _server.Log, StringComparison.Ordinal);
    }
}
