using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Connections of clients go on in the next process, from between two requests.</summary>
[Collection("environment of a store")]
public sealed class NbdHandoverTests : IDisposable
{
    private const ulong FlushHandle = 77;

    private readonly TestDevice _device = TestDevice.OfSize(64 << 20);
    private readonly NbdHandoverWorkers _workers = new();

    public void Dispose()
    {
        _device.Held = false;
        _workers.Dispose();
    }

    private static byte[] Pattern(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private static byte[] Request(NbdCommand command, ulong handle, long offset, int length, ReadOnlySpan<byte> payload = default)
    {
        byte[] bytes = new byte[NbdProtocol.RequestBytes + payload.Length];
        new NbdRequestHeader(NbdProtocol.RequestMagic, 0, command, handle, (ulong)offset, (ulong)length).Encode(bytes);
        payload.CopyTo(bytes.AsSpan(NbdProtocol.RequestBytes));
        return bytes;
    }

    /// <summary>Sends a flush and these bytes in one go: when the flush is answered, the bytes were received, too.</summary>
    private static void SendBehindFlush(NbdTestClient client, ReadOnlySpan<byte> bytes)
    {
        client.Send([.. Request(NbdCommand.Flush, FlushHandle, 0, 0), .. bytes]);
        Assert.Equal((NbdError.None, FlushHandle), client.ReadReply());
    }

    private NbdConnectionState State(int number = 0)
    {
        NbdConnectionState? state = null;
        _workers.Store.WithState(number, bytes => state = NbdConnectionState.Decode(bytes.ToArray()));
        return state!;
    }

    [Fact]
    public void Idle_clients_go_on_and_leave_nothing_in_the_store()
    {
        _workers.Start(_device);
        using NbdTestClient first = NbdTestClient.Go(_workers.Path);
        var session = new NbdSession(StructuredReplies: true, ExtendedHeaders: true, HasAllocation: true);
        using NbdTestClient second = NbdTestClient.Go(_workers.Path, session);
        Assert.Equal(NbdError.None, first.Write(4096, Pattern(4096, 1)));
        Assert.Equal(NbdChunk.BlockStatusExtended, second.Ask(NbdCommand.BlockStatus, 0, 8192).Type);
        _workers.Park();
        Assert.Equal(2, _workers.Store.Connections);
        NbdConnectionState state = Enumerable.Range(0, 2).Select(State).Single(state => state.Session == session);
        Assert.Equal((2L, NbdHandoverWorkers.Device, NbdExportInfo.Describe(_device.Info)), (state.Client, state.Device, state.Told));
        Assert.Equal(NbdClientFlags.FixedNewstyle | NbdClientFlags.NoZeroes, state.ClientFlags);
        _workers.Start(_device);
        // A third process must never find what a second one has read from.
        Assert.Equal(["nbd-vm-1"], _workers.Store.Names);
        Assert.Equal(Pattern(4096, 1), first.ReadBlocks(4096, 4096));
        Assert.Equal(NbdChunk.BlockStatusExtended, second.Ask(NbdCommand.BlockStatus, 0, 8192).Type);
        Assert.Equal(2, _workers.Export.ClientCount);
    }

    [Fact]
    public void A_client_that_goes_on_keeps_its_number_and_new_ones_have_others()
    {
        _workers.Start(_device);
        using NbdTestClient first = NbdTestClient.Go(_workers.Path);
        _workers.ParkAndStart(_device);
        using NbdTestClient second = NbdTestClient.Go(_workers.Path);
        second.SendRequest(NbdCommand.Flush, 1, 0, 0, magic: 1);
        second.ReadToEnd();
        Assert.Contains("client 2 was disconnected", _workers.Log, StringComparison.Ordinal);
        first.SendRequest(NbdCommand.Flush, 1, 0, 0, magic: 1);
        first.ReadToEnd();
        Assert.Contains("client 1 was disconnected", _workers.Log, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(27)]
    public void The_beginning_of_a_header_goes_along(int count)
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        byte[] request = Request(NbdCommand.Flush, 5, 0, 0);
        SendBehindFlush(client, request.AsSpan(0, count));
        _workers.Park();
        Assert.Equal(request[..count], State().Input.ToArray());
        _workers.Start(_device);
        client.Send(request.AsSpan(count));
        Assert.Equal((NbdError.None, 5UL), client.ReadReply());
    }

    [Theory]
    [InlineData(8192, 1000)]
    [InlineData(1 << 20, 60_000)]
    [InlineData(4 << 20, 60_000)]
    public void The_beginning_of_a_payload_goes_along_with_its_header(int length, int count)
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        byte[] data = Pattern(length, length);
        byte[] request = Request(NbdCommand.Write, 5, 4096, length, data);
        SendBehindFlush(client, request.AsSpan(0, NbdProtocol.RequestBytes + count));
        _workers.Park();
        Assert.Equal(request[..(NbdProtocol.RequestBytes + count)], State().Input.ToArray());
        // Another process that reads nothing of it before it hands over again.
        _workers.Start(_device);
        _workers.Park();
        Assert.Equal(request[..(NbdProtocol.RequestBytes + count)], State().Input.ToArray());
        _workers.Start(_device);
        client.Send(request.AsSpan(NbdProtocol.RequestBytes + count));
        Assert.Equal((NbdError.None, 5UL), client.ReadReply());
        Assert.Equal(data, client.ReadBlocks(4096, length));
        Assert.Equal(1, _device.Done.Count(static done => done.Operation == BlockOperation.Write && done.Offset == 4096));
    }

    [Fact]
    public async Task A_long_write_that_is_being_sent_is_waited_for()
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        using var shaking = new NbdTestClient(_workers.Path);
        byte[] data = Pattern(1 << 20, 3);
        SendBehindFlush(client, Request(NbdCommand.Write, 5, 0, data.Length, data.AsSpan(0, 100_000)));
        // More than is received with the header, or the payload would go along.
        client.SendBufferBytes = 4096;
        client.Send(data.AsSpan(100_000, 200_000));
        Task parking = Task.Run(_workers.Park, TestContext.Current.CancellationToken);
        // It is disconnected when nobody is accepted any more.
        shaking.ReadToEnd();
        client.Send(data.AsSpan(300_000));
        Assert.Equal((NbdError.None, 5UL), client.ReadReply());
        await parking;
        Assert.Equal(0, State().Input.Length);
        _workers.Start(_device);
        Assert.Equal(data, client.ReadBlocks(0, data.Length));
    }

    [Fact]
    public void A_long_write_that_does_not_end_in_time_ends_its_connection_alone()
    {
        _workers.Patience = _workers.Patience with { ParkMs = 50 };
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        using NbdTestClient other = NbdTestClient.Go(_workers.Path);
        byte[] data = Pattern(1 << 20, 3);
        SendBehindFlush(client, Request(NbdCommand.Write, 5, 0, data.Length, data.AsSpan(0, 100_000)));
        client.SendBufferBytes = 4096;
        client.Send(data.AsSpan(100_000, 200_000));
        _workers.ParkAndStart(_device);
        client.ReadToEnd();
        Assert.Contains("1 client(s) were disconnected: within 50 ms", _workers.Log, StringComparison.Ordinal);
        Assert.Equal(NbdError.None, other.Do(NbdCommand.Flush, 0, 0));
        Assert.DoesNotContain(_device.Done, static done => done.Operation == BlockOperation.Write);
    }

    [Fact]
    public void A_client_that_does_not_read_its_replies_is_disconnected_in_time()
    {
        _workers.Patience = _workers.Patience with { ParkMs = 50 };
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        for (ulong handle = 0; handle < 8; handle++)
            client.SendRequest(NbdCommand.Read, handle, 0, 1 << 20);
        NbdTestServer.Until(() => _device.Submitted == 8, "all are at the device");
        _workers.Park();
        Assert.Equal(0, _workers.Store.Connections);
        client.ReadToEnd();
        Assert.Contains("1 client(s) were disconnected: within 50 ms", _workers.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Requests_at_the_device_are_answered_before_and_those_that_wait_for_room_after()
    {
        const int requests = 400;
        _device.Held = true;
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        for (ulong handle = 0; handle < requests; handle++)
            client.SendRequest(NbdCommand.Read, handle, (long)handle * 512, 512);
        // A client alone gets half of the slots; the header of the next request waits.
        NbdTestServer.Until(() => _device.Submitted >= 128, "its share is at the device");
        int before = _device.Submitted;
        Task parking = Task.Run(_workers.Park, TestContext.Current.CancellationToken);
        await Task.Delay(100, TestContext.Current.CancellationToken);
        Assert.False(parking.IsCompleted);
        _device.Held = false;
        var seen = new HashSet<ulong>();
        for (int i = 0; i < before; i++)
            Assert.True(seen.Add(ReadOne(client)));
        await parking;
        Assert.InRange(State().Input.Length, 0, (requests - before) * NbdProtocol.RequestBytes);
        _workers.Start(_device);
        for (int i = before; i < requests; i++)
            Assert.True(seen.Add(ReadOne(client)));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
        Assert.Equal(requests + 1, _device.Submitted);
    }

    [Fact]
    public void A_client_in_its_handshake_is_disconnected_and_one_that_comes_meanwhile_is_served_by_the_next_process()
    {
        _workers.Start(_device);
        using var shaking = new NbdTestClient(_workers.Path);
        shaking.Greet();
        _workers.Park();
        shaking.ReadToEnd();
        Assert.Equal(["nbd-vm-1"], _workers.Store.Names);
        using var waiting = new NbdTestClient(_workers.Path);
        _workers.Start(_device);
        waiting.Greet();
        waiting.SendOption(NbdOption.Abort, []);
    }

    [Fact]
    public void A_client_that_is_gone_is_gone()
    {
        _workers.Start(_device);
        NbdTestClient client = NbdTestClient.Go(_workers.Path);
        client.Do(NbdCommand.Flush, 0, 0);
        _workers.Park();
        client.Dispose();
        _workers.Start(_device);
        NbdTestServer.Until(() => _workers.Export.ClientCount == 0, "its end is seen");
        Assert.Contains("1 client(s) of the process before go on", _workers.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void What_others_wait_for_is_divided_among_old_and_new_clients_alike()
    {
        _workers.Options = _workers.Options with { Connections = 2 };
        _workers.Start(_device);
        using NbdTestClient old = NbdTestClient.Go(_workers.Path);
        _workers.ParkAndStart(_device);
        _device.Held = true;
        for (ulong handle = 0; handle < 300; handle++)
            old.SendRequest(NbdCommand.Read, handle, 0, 512);
        NbdTestServer.Until(() => _device.Submitted >= 128, "its share is at the device");
        using NbdTestClient young = NbdTestClient.Go(_workers.Path);
        for (ulong handle = 0; handle < 10; handle++)
            young.SendRequest(NbdCommand.Read, handle, 512, 512);
        NbdTestServer.Until(() => CountAt(512) == 10, "there is room for the other");
        // A third one has no place.
        using var third = new NbdTestClient(_workers.Path);
        third.ReadToEnd();
        Assert.Contains("2 are connected, which is the limit", _workers.Log, StringComparison.Ordinal);
        Assert.InRange(CountAt(0), 128, 200);
    }

    [Fact]
    public void Without_a_store_or_a_name_nothing_is_parked_and_the_export_serves_on()
    {
        using var server = new NbdTestServer(_device);
        server.Export.KeepFor(NbdHandoverWorkers.Device);
        using NbdTestClient client = server.Connect();
        Assert.False(server.Export.TryPark());
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
        _workers.Open();
        Assert.False(_workers.Export.TryPark());
        _workers.Export.Serve(_device, 1, PollMode.Adaptive);
        Assert.True(_workers.Export.TryPark());
        Assert.False(_workers.Export.TryPark());
    }

    private static ulong ReadOne(NbdTestClient client)
    {
        (NbdError error, ulong handle) = client.ReadReply();
        Assert.Equal(NbdError.None, error);
        client.Read(512);
        return handle;
    }

    private int CountAt(long offset)
    {
        lock (_device.Done)
            return _device.Done.Count(done => done.Offset == offset);
    }
}
