using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>What was handed over is not what it must be, or does not fit any more: that connection ends, and no other.</summary>
[Collection("environment of a store")]
public sealed class NbdHandoverFaultTests : IDisposable
{
    private readonly TestDevice _device = TestDevice.OfSize(1 << 20);
    private readonly NbdHandoverWorkers _workers = new();

    public void Dispose() => _workers.Dispose();

    /// <summary>Hands two clients over, does something to the first, and expects that it alone ends.</summary>
    private void OneEnds(Action harm, string why)
    {
        _workers.Start(_device);
        using NbdTestClient first = NbdTestClient.Go(_workers.Path);
        using NbdTestClient second = NbdTestClient.Go(_workers.Path);
        _workers.Park();
        harm();
        _workers.Start(_device);
        int client = FirstOf(first, second);
        (client == 0 ? first : second).ReadToEnd();
        Assert.Equal(NbdError.None, (client == 0 ? second : first).Do(NbdCommand.Flush, 0, 0));
        Assert.Contains(why, Assert.Single(_workers.Log.Split('\n'), static line => line.Contains("closed", StringComparison.Ordinal)), StringComparison.Ordinal);
        Assert.Equal(["nbd-vm-1"], _workers.Store.Names);
    }

    /// <summary>Which of them was disconnected: the order in the store is nobody's promise.</summary>
    private static int FirstOf(NbdTestClient first, NbdTestClient second)
    {
        int ended = -1;
        NbdTestServer.Until(() => (ended = first.HasEnded ? 0 : second.HasEnded ? 1 : -1) >= 0, "one of them is disconnected");
        return ended;
    }

    /// <summary>Hands one client over to a process in which the device is another, and expects that it ends.</summary>
    private void Ends(TestDevice next, string why)
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        _workers.Park();
        _workers.Start(next);
        client.ReadToEnd();
        Assert.Contains(why, Assert.Single(_workers.Log.Split('\n'), static line => line.Contains("closed", StringComparison.Ordinal)), StringComparison.Ordinal);
        Assert.Equal(0, _workers.Export.ClientCount);
        // Who comes anew is told what is.
        using NbdTestClient again = NbdTestClient.Go(_workers.Path);
        Assert.Equal(NbdError.None, again.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void A_state_that_was_scribbled_on() =>
        OneEnds(() => _workers.Store.WithState(0, static bytes => bytes.Span[40] ^= 1), "whose checksum is wrong");

    [Fact]
    public void A_state_of_another_device() =>
        OneEnds(() => _workers.Store.WithState(0, static bytes => Change(bytes, 72, (byte)'x')), "its state is of device xm-1");

    [Fact]
    public void A_state_of_another_version() =>
        OneEnds(() => _workers.Store.WithState(0, static bytes => Change(bytes, 8, 2)), "has version 2, and this program reads version 1");

    [Fact]
    public void A_state_that_is_too_short() =>
        OneEnds(() => _workers.Store.ReplaceState(0, Short()), "has 1024 bytes read ahead, in 4096 bytes");

    [Fact]
    public void A_state_that_could_change_its_size() =>
        OneEnds(() => _workers.Store.ReplaceState(0, Unsealed()), "its size could change");

    [Fact]
    public void A_state_that_did_not_come() =>
        OneEnds(() => _workers.Store.Forget("nbdstate-"), "without its state");

    [Fact]
    public void A_connection_that_did_not_come()
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        _workers.Park();
        _workers.Store.Forget("nbdconn-");
        client.ReadToEnd();
        _workers.Start(_device);
        Assert.Contains("without its socket", _workers.Log, StringComparison.Ordinal);
        Assert.Equal(["nbd-vm-1"], _workers.Store.Names);
    }

    [Fact]
    public void States_that_were_exchanged()
    {
        _workers.Start(_device);
        using NbdTestClient first = NbdTestClient.Go(_workers.Path);
        using NbdTestClient second = NbdTestClient.Go(_workers.Path);
        _workers.Park();
        _workers.Store.SwapStates();
        _workers.Start(_device);
        first.ReadToEnd();
        second.ReadToEnd();
        Assert.Contains("its state is of socket", _workers.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void A_smaller_device() => Ends(TestDevice.OfSize(1 << 19), "has 524288 bytes now, and its client was told 1048576");

    [Fact]
    public void A_device_that_is_read_only_now() => Ends(new TestDevice(_device.Info with { ReadOnly = true }), "the device has the flags");

    [Fact]
    public void A_device_that_cannot_discard_any_more() => Ends(new TestDevice(_device.Info with { CanDiscard = false }), "the device has the flags");

    [Fact]
    public void A_device_with_larger_blocks() => Ends(new TestDevice(_device.Info with { LogicalBlockBytes = 4096 }), "takes 4096 to 33554432 bytes at once now");

    [Fact]
    public void A_device_that_may_have_lost_what_was_not_flushed() =>
        Ends(new TestDevice(_device.Info with { DurabilityId = Guid.NewGuid() }), "what it wrote and did not flush may be lost");

    [Fact]
    public void A_device_that_wants_TLS_now()
    {
        using var files = new TlsFiles();
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        _workers.Park();
        _workers.Options = _workers.Options with { Tls = files.Options() };
        _workers.Start(_device);
        client.ReadToEnd();
        Assert.Contains("it is not encrypted", _workers.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void A_larger_device_goes_on()
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        using TestDevice larger = TestDevice.OfSize(2 << 20);
        _workers.ParkAndStart(larger);
        Assert.Equal(NbdError.None, client.Write((2 << 20) - 512, new byte[512]));
        Assert.DoesNotContain("closed", _workers.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void More_clients_than_there_may_be_now()
    {
        _workers.Start(_device);
        NbdTestClient[] clients = [.. Enumerable.Range(0, 3).Select(_ => NbdTestClient.Go(_workers.Path))];
        _workers.Park();
        _workers.Options = _workers.Options with { Connections = 2 };
        _workers.Start(_device);
        NbdTestServer.Until(() => clients.Count(static client => client.HasEnded) == 1, "one is disconnected");
        foreach (NbdTestClient client in clients.Where(static client => !client.HasEnded))
            Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
        Assert.Contains("2 clients are connected, which is the limit", _workers.Log, StringComparison.Ordinal);
        Array.ForEach(clients, static client => client.Dispose());
    }

    [Theory]
    [InlineData(4, 256)]
    [InlineData(256, 4)]
    public void A_store_that_is_full_for_the_manager_or_for_the_process(int capacity, int believed)
    {
        using var workers = new NbdHandoverWorkers(capacity) { Believed = believed };
        workers.Start(_device);
        NbdTestClient[] clients = [.. Enumerable.Range(0, 3).Select(_ => NbdTestClient.Go(workers.Path))];
        workers.Park();
        // One with both of its descriptors fits beside the listening socket.
        NbdTestServer.Until(() => workers.Store.Names.Length == 3 && workers.Store.Connections == 1, "nothing is left of the others");
        Assert.Contains("nbd-vm-1", workers.Store.Names);
        NbdTestServer.Until(() => clients.Count(static client => client.HasEnded) == 2, "the others are disconnected");
        Assert.Contains("2 client(s) were disconnected, because they could not be handed over", workers.Log, StringComparison.Ordinal);
        workers.Start(_device);
        Assert.Equal(NbdError.None, clients.Single(static client => !client.HasEnded).Do(NbdCommand.Flush, 0, 0));
        Array.ForEach(clients, static client => client.Dispose());
    }

    [Fact]
    public void Clients_of_a_device_that_nobody_wants_any_more()
    {
        _workers.Start(_device);
        using NbdTestClient client = NbdTestClient.Go(_workers.Path);
        _workers.Park();
        _workers.Open();
        _workers.CloseUnwanted();
        client.ReadToEnd();
        Assert.Contains("1 connection(s) that were handed over for device vm-1 are closed: nobody wants that device any more", _workers.Log, StringComparison.Ordinal);
        Assert.Equal(["nbd-vm-1"], _workers.Store.Names);
    }

    private static void Change(Memory<byte> bytes, int offset, byte value)
    {
        bytes.Span[offset] = value;
        NbdConnectionState.Seal(bytes.Span);
    }

    private static FileDescriptor Short()
    {
        byte[] bytes = new byte[8192];
        new NbdConnectionState
        {
            Device = NbdHandoverWorkers.Device,
            Client = 1,
            Told = NbdExportInfo.Describe(new BlockDeviceInfo { SizeBytes = 1 << 20 }),
            Input = new byte[1024],
        }.Encode(bytes);
        var memory = SealedMemory.Create("short", 4096);
        bytes.AsSpan(0, 4096).CopyTo(memory.Buffer.GetSpan(0, 4096));
        return memory.Descriptor;
    }

    private static FileDescriptor Unsealed()
    {
        int number = LibC.CreateMemoryFile("unsealed", KernelConstants.MemoryFileCloseOnExec | KernelConstants.MemoryFileAllowSealing);
        var descriptor = FileDescriptor.Own(number, "unsealed");
        descriptor.Truncate(4096);
        return descriptor;
    }
}
