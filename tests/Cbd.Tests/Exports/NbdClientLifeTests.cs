using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

public sealed class NbdClientLifeTests : IDisposable
{
    private readonly TestDevice _device = TestDevice.OfSize(80 << 20);
    private readonly NbdTestServer _server;

    public NbdClientLifeTests() => _server = new NbdTestServer(_device);

    public void Dispose() => _server.Dispose();

    [Fact]
    public void A_client_that_vanishes_in_the_middle_of_a_write_leaves_nothing_behind()
    {
        using NbdTestClient other = _server.Connect();
        // More memory than the pump has, if any of it were lost.
        for (int i = 0; i < 6; i++)
        {
            using NbdTestClient client = _server.Connect();
            client.SendRequest(NbdCommand.Write, 1, 0, 32 << 20, payload: new byte[100_000]);
            NbdTestServer.Until(() => _server.Export.GetStatistics()[0].Requests == i + 1, "it holds memory");
            client.Dispose();
            NbdTestServer.Until(() => _server.Export.ClientCount == 1, "it is gone");
        }

        Assert.Equal(0, _device.Submitted);
        Assert.Equal(NbdError.None, other.Write(0, new byte[32 << 20]));
    }

    [Fact]
    public void Requests_of_a_vanished_client_end_at_the_device_before_it_is_gone()
    {
        using NbdTestClient other = _server.Connect();
        _device.Held = true;
        using (NbdTestClient client = _server.Connect())
        {
            for (ulong handle = 0; handle < 20; handle++)
                client.SendRequest(NbdCommand.Read, handle, 0, 1 << 20);
            NbdTestServer.Until(() => _device.Submitted == 20, "the requests are at the device");
        }

        other.SendRequest(NbdCommand.Write, 5, 0, 512, payload: new byte[512]);
        NbdTestServer.Until(() => _device.Submitted == 21, "the other client is served");
        Assert.Equal(2, _server.Export.ClientCount);
        _device.Held = false;
        Assert.Equal((NbdError.None, 5UL), other.ReadReply());
        NbdTestServer.Until(() => _server.Export.ClientCount == 1, "the vanished client is gone");
    }

    [Fact]
    public void A_client_that_reads_no_replies_does_not_stop_another()
    {
        using NbdTestClient silent = _server.Connect();
        for (ulong handle = 0; handle < 40; handle++)
            silent.SendRequest(NbdCommand.Read, handle, 0, 1 << 20);
        NbdTestServer.Until(() => _device.Submitted >= 32, "it holds as much memory as one client may");
        using NbdTestClient client = _server.Connect();
        for (int i = 0; i < 100; i++)
            Assert.Equal(NbdError.None, client.Write(i * 4096, new byte[4096]));
        for (int i = 0; i < 40; i++)
        {
            Assert.Equal(NbdError.None, silent.ReadReply().Error);
            silent.Read(1 << 20);
        }
    }

    [Fact]
    public void Clients_that_announce_long_writes_and_send_little_keep_nobody_waiting()
    {
        var slow = new List<NbdTestClient>();
        for (int i = 0; i < 10; i++)
        {
            slow.Add(_server.Connect());
            slow[i].SendRequest(NbdCommand.Write, 1, 0, 32 << 20, payload: new byte[100]);
        }

        using NbdTestClient good = _server.Connect();
        Assert.Equal(new byte[4096], good.ReadBlocks(0, 4096));
        Assert.Equal(NbdError.None, good.Write(0, new byte[32 << 20]));
        Assert.Equal(new byte[32 << 20], good.ReadBlocks(0, 32 << 20));
        Assert.Equal(11, _server.Export.ClientCount);
        Assert.Empty(_server.Log);
        slow.ForEach(client => client.Dispose());
    }

    [Fact]
    public void Clients_that_hold_all_of_the_memory_leave_another_one_its_requests()
    {
        // All slots and all memory: reads of all lengths whose replies nobody reads, and long writes that stop in the middle.
        var greedy = new List<NbdTestClient>();
        for (int i = 0; i < 40; i++)
        {
            greedy.Add(_server.Connect());
            for (ulong handle = 0; handle < 40; handle++)
                greedy[i].SendRequest(NbdCommand.Read, handle, 0, (ulong)(2 << 20) >> (i % 10));
            greedy.Add(_server.Connect());
            greedy[^1].SendRequest(NbdCommand.Write, 1, 0, (ulong)(2 << 20) >> (i % 4), payload: new byte[100_000]);
        }

        using NbdTestClient good = _server.Connect();
        for (int i = 0; i < 200; i++)
        {
            Assert.Equal(new byte[4096], good.ReadBlocks(i * 4096, 4096));
            Assert.Equal(NbdError.None, good.Write(i * 4096, new byte[ClientShares.ReserveBytes]));
        }

        greedy.ForEach(client => client.Dispose());
        NbdTestServer.Until(() => _server.Export.ClientCount == 1, "the others are gone");
        Assert.Equal(NbdError.None, good.Write(0, new byte[32 << 20]));
    }

    [Fact]
    public void Disconnect_answers_what_was_sent_before_and_closes()
    {
        using NbdTestClient client = _server.Connect();
        _device.Held = true;
        client.SendRequest(NbdCommand.Read, 3, 0, 4096);
        client.SendRequest(NbdCommand.Disconnect, 4, 0, 0);
        NbdTestServer.Until(() => _device.Submitted == 1, "the request is at the device");
        _device.Held = false;
        Assert.Equal((NbdError.None, 3UL), client.ReadReply());
        client.Read(4096);
        client.ReadToEnd();
        NbdTestServer.Until(() => _server.Export.ClientCount == 0, "the client is gone");
    }

    [Fact]
    public void A_client_that_only_stops_sending_still_gets_its_replies()
    {
        using NbdTestClient client = _server.Connect();
        for (ulong handle = 0; handle < 10; handle++)
            client.SendRequest(NbdCommand.Read, handle, 0, 1 << 20);
        client.ShutdownSend();
        for (int i = 0; i < 10; i++)
        {
            Assert.Equal(NbdError.None, client.ReadReply().Error);
            client.Read(1 << 20);
        }

        client.ReadToEnd();
    }

    [Fact]
    public void Stop_answers_what_is_in_flight_closes_the_queues_and_removes_the_socket()
    {
        using NbdTestClient client = _server.Connect();
        using var handshaking = new NbdTestClient(_server.Path);
        _device.Held = true;
        client.SendRequest(NbdCommand.Write, 9, 0, 512, payload: new byte[512]);
        client.SendRequest(NbdCommand.Write, 10, 0, 1 << 20, payload: new byte[1000]);
        NbdTestServer.Until(() => _device.Submitted == 1, "the request is at the device");
        var stopping = new Thread(() => _server.Export.Stop(force: false));
        stopping.Start();
        handshaking.ReadToEnd();
        _device.Held = false;
        Assert.Equal((NbdError.None, 9UL), client.ReadReply());
        client.ReadToEnd();
        stopping.Join();
        Assert.Equal(0, _device.OpenQueues);
        Assert.Equal(1, _device.Submitted);
        Assert.False(File.Exists(_server.Path));
        Assert.Equal(0, _server.Export.ClientCount);
    }

    [Fact]
    public void Clients_are_spread_over_the_queues()
    {
        using var server = new NbdTestServer(_device, queues: 3);
        var clients = new List<NbdTestClient>();
        for (int i = 0; i < 6; i++)
        {
            clients.Add(server.Connect());
            Assert.Equal(NbdError.None, clients[i].Do(NbdCommand.Flush, 0, 0));
        }

        Assert.Equal([2L, 2, 2], server.Export.GetStatistics().Select(pump => pump.Requests));
        Assert.Equal(4, _device.OpenQueues);
        clients.ForEach(client => client.Dispose());
    }

    [Fact]
    public void A_device_that_grows_is_served_in_its_new_size()
    {
        using NbdTestClient client = _server.Connect();
        // The first turn of the connection is over then: it began with what the device was.
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
        _device.Info = _device.Info with { SizeBytes = 40 << 20 };
        Assert.Equal(NbdError.Invalid, client.Do(NbdCommand.Read, 50 << 20, 512));
        _device.Info = _device.Info with { SizeBytes = 80 << 20 };
        Assert.Equal(new byte[512], client.ReadBlocks(50 << 20, 512));
    }

    [Fact]
    public void A_device_that_fails_ends_its_clients_and_later_ones_and_can_be_stopped()
    {
        using NbdTestClient client = _server.Connect();
        _device.Broken = true;
        client.SendRequest(NbdCommand.Flush, 1, 0, 0);
        client.ReadToEnd();
        Assert.Contains("the test broke the device", _server.Log, StringComparison.Ordinal);
        using NbdTestClient later = _server.Connect();
        later.ReadToEnd();
        _server.Export.Stop(force: false);
        Assert.Equal(0, _device.OpenQueues);
    }
}
