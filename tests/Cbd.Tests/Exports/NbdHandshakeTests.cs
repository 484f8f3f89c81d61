using System.Buffers.Binary;
using System.Text;
using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Exports;

public sealed class NbdHandshakeTests : IDisposable
{
    private readonly TestDevice _device = new(new BlockDeviceInfo
    {
        SizeBytes = 1 << 20,
        LogicalBlockBytes = 4096,
        PhysicalBlockBytes = 16384,
        MaxTransferBytes = 512 << 10,
        CanDiscard = true,
    });

    private readonly NbdTestServer _server;

    public NbdHandshakeTests() => _server = new NbdTestServer(_device);

    public void Dispose() => _server.Dispose();

    [Fact]
    public void Go_tells_size_flags_and_block_sizes_and_what_was_asked_for()
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        client.SendOption(NbdOption.Go, [0, 0, 0, 0, 0, 3, 0, 1, 0, 2, 0, 77]);
        var replies = new Dictionary<NbdInfo, byte[]>();
        (NbdOption Option, NbdOptionReply Reply, byte[] Data) reply;
        while ((reply = client.ReadOptionReply()).Reply == NbdOptionReply.Info)
            replies.Add((NbdInfo)BinaryPrimitives.ReadUInt16BigEndian(reply.Data), reply.Data[2..]);
        Assert.Equal(NbdOptionReply.Ack, reply.Reply);
        Assert.Equal(4, replies.Count);
        Assert.Equal(1UL << 20, BinaryPrimitives.ReadUInt64BigEndian(replies[NbdInfo.Export]));
        Assert.Equal(
            NbdTransmissionFlags.HasFlags | NbdTransmissionFlags.SendFlush | NbdTransmissionFlags.SendFua |
            NbdTransmissionFlags.SendTrim | NbdTransmissionFlags.SendWriteZeroes | NbdTransmissionFlags.SendFastZero | NbdTransmissionFlags.CanMultiConn,
            (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(replies[NbdInfo.Export].AsSpan(8)));
        Assert.Equal([0, 0, 16, 0, 0, 0, 64, 0, 2, 0, 0, 0], replies[NbdInfo.BlockSize]);
        Assert.Empty(replies[NbdInfo.Name]);
        Assert.Equal("CBD block device", Encoding.UTF8.GetString(replies[NbdInfo.Description]));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void Info_answers_and_stays_in_the_handshake()
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        client.SendOption(NbdOption.Info, [0, 0, 0, 0, 0, 0]);
        Assert.Equal(NbdOptionReply.Info, client.ReadOptionReply().Reply);
        Assert.Equal(NbdOptionReply.Info, client.ReadOptionReply().Reply);
        Assert.Equal(NbdOptionReply.Ack, client.ReadOptionReply().Reply);
        client.SendOption(NbdOption.Abort, []);
        Assert.Equal(NbdOptionReply.Ack, client.ReadOptionReply().Reply);
        client.ReadToEnd();
    }

    [Theory]
    [InlineData(3u, 10)]
    [InlineData(1u, 134)]
    public void Export_name_answers_with_or_without_padding(uint clientFlags, int length)
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet(clientFlags);
        client.SendOption(NbdOption.ExportName, []);
        Assert.Equal(1UL << 20, BinaryPrimitives.ReadUInt64BigEndian(client.Read(length)));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void List_names_the_one_export()
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        client.SendOption(NbdOption.List, []);
        (_, NbdOptionReply reply, byte[] data) = client.ReadOptionReply();
        Assert.Equal(NbdOptionReply.Server, reply);
        Assert.Equal(0u, BinaryPrimitives.ReadUInt32BigEndian(data));
        Assert.Equal(NbdOptionReply.Ack, client.ReadOptionReply().Reply);
    }

    [Theory]
    [InlineData(5u, 0, 0x8000_0001u)]
    [InlineData(4u, 0, 0x8000_0001u)]
    [InlineData(8u, 1, 0x8000_0003u)]
    [InlineData(9u, 8, 0x8000_0003u)]
    [InlineData(10u, 8, 0x8000_0003u)]
    [InlineData(11u, 4, 0x8000_0003u)]
    [InlineData(4711u, 5000, 0x8000_0001u)]
    [InlineData(4711u, 1 << 20, 0x8000_0001u)]
    [InlineData(3u, 1, 0x8000_0003u)]
    [InlineData(3u, 20_000, 0x8000_0009u)]
    [InlineData(7u, 1 << 20, 0x8000_0009u)]
    [InlineData(10u, 70_000, 0x8000_0009u)]
    [InlineData(6u, 5, 0x8000_0003u)]
    [InlineData(7u, 7, 0x8000_0003u)]
    public void Options_that_are_unknown_or_malformed_are_refused_and_the_handshake_goes_on(uint option, int length, uint expected)
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        client.SendOption((NbdOption)option, new byte[length]);
        (NbdOption answered, NbdOptionReply reply, byte[] message) = client.ReadOptionReply();
        Assert.Equal(option, (uint)answered);
        Assert.Equal(expected, (uint)reply);
        Assert.NotEmpty(message);
        client.SendOption(NbdOption.Abort, []);
        Assert.Equal(NbdOptionReply.Ack, client.ReadOptionReply().Reply);
    }

    [Fact]
    public void An_unknown_export_is_named_in_the_error()
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        client.SendOption(NbdOption.Go, [0, 0, 0, 5, .. "a\u0007bcd"u8, 0, 0]);
        (_, NbdOptionReply reply, byte[] message) = client.ReadOptionReply();
        Assert.Equal(NbdOptionReply.ErrorUnknown, reply);
        Assert.Contains("'a?bcd'", Encoding.UTF8.GetString(message), StringComparison.Ordinal);
    }

    [Fact]
    public void An_unknown_export_name_ends_the_old_handshake_and_is_logged()
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        client.SendOption(NbdOption.ExportName, "other"u8);
        client.ReadToEnd();
        NbdTestServer.Until(() => _server.Log.Contains("'other'", StringComparison.Ordinal), "the log names the export");
    }

    [Fact]
    public void Garbage_ends_only_the_connection_that_sent_it()
    {
        using NbdTestClient good = _server.Connect();
        using (var unknownFlags = new NbdTestClient(_server.Path))
        {
            unknownFlags.Greet(0x80);
            unknownFlags.ReadToEnd();
        }

        using (var garbage = new NbdTestClient(_server.Path))
        {
            garbage.Greet();
            garbage.Send("GET / HTTP/1.1\r\n\r\n"u8);
            garbage.ReadToEnd();
        }

        using (var tooLong = new NbdTestClient(_server.Path))
        {
            tooLong.Greet();
            tooLong.SendOption(NbdOption.Go, [], uint.MaxValue);
            tooLong.ReadToEnd();
        }

        Assert.Equal(NbdError.None, good.Do(NbdCommand.Flush, 0, 0));
        Assert.Contains("IHAVEOPT", _server.Log, StringComparison.Ordinal);
        Assert.Contains("4294967295", _server.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void A_handshake_that_comes_byte_by_byte_is_understood()
    {
        using var client = new NbdTestClient(_server.Path);
        client.Greet();
        byte[] option = [.. "IHAVEOPT"u8, 0, 0, 0, 7, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0];
        foreach (byte value in option)
            client.Send([value]);
        Assert.Equal(NbdOptionReply.Info, client.ReadOptionReply().Reply);
    }

    [Fact]
    public void Clients_that_say_nothing_do_not_keep_others_from_a_place()
    {
        var silent = new List<NbdTestClient>();
        for (int i = 0; i < SocketOptions.DefaultConnections; i++)
        {
            silent.Add(new NbdTestClient(_server.Path));
            silent[i].Greet();
        }

        using NbdTestClient good = _server.Connect();
        Assert.Equal(NbdError.None, good.Do(NbdCommand.Flush, 0, 0));
        silent[0].ReadToEnd();
        Assert.Contains("client 1 was disconnected: it was in its handshake for longest", _server.Log, StringComparison.Ordinal);
        silent.ForEach(client => client.Dispose());
    }

    [Fact]
    public void One_that_sends_options_without_end_keeps_nobody_waiting()
    {
        using var flood = new NbdTestClient(_server.Path);
        flood.Greet();
        for (int i = 0; i < NbdHandshake.MaxOptions + 1; i++)
            flood.SendOption((NbdOption)0xffff, []);
        using NbdTestClient good = _server.Connect();
        Assert.Equal(NbdError.None, good.Do(NbdCommand.Flush, 0, 0));
        flood.ReadToEnd();
        NbdTestServer.Until(() => _server.Log.Contains("256 options", StringComparison.Ordinal), "the log says why");
    }

    [Fact]
    public void The_client_after_the_last_one_allowed_is_refused_and_one_that_leaves_makes_room()
    {
        var clients = new List<NbdTestClient>();
        try
        {
            for (int i = 0; i < SocketOptions.DefaultConnections; i++)
                clients.Add(_server.Connect());
            using (var refused = new NbdTestClient(_server.Path))
                refused.ReadToEnd();
            Assert.Contains("128 are connected", _server.Log, StringComparison.Ordinal);
            Assert.Equal(128, _server.Export.ClientCount);
            clients[5].Dispose();
            NbdTestServer.Until(() => _server.Export.ClientCount == 127, "the client is gone");
            clients.Add(_server.Connect());
            Assert.Equal(NbdError.None, clients[^1].Do(NbdCommand.Flush, 0, 0));
        }
        finally
        {
            clients.ForEach(client => client.Dispose());
        }
    }
}
