using Cbd.Exports.Pumping;
using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

public sealed class NbdTransmissionTests : IDisposable
{
    private readonly TestDevice _device = TestDevice.OfSize(80 << 20);
    private readonly NbdTestServer _server;

    public NbdTransmissionTests() => _server = new NbdTestServer(_device);

    public void Dispose() => _server.Dispose();

    private static byte[] Pattern(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    [Theory]
    [InlineData(512)]
    [InlineData(65536 - 28)]
    [InlineData(1 << 20)]
    [InlineData(32 << 20)]
    public void What_is_written_is_read_back(int length)
    {
        using NbdTestClient client = _server.Connect();
        length &= ~511;
        byte[] bytes = Pattern(length, length);
        Assert.Equal(NbdError.None, client.Write(4096, bytes));
        Assert.True(client.ReadBlocks(4096, length).AsSpan().SequenceEqual(bytes));
    }

    [Fact]
    public void Flags_and_operations_reach_the_device()
    {
        using NbdTestClient client = _server.Connect();
        Assert.Equal(NbdError.None, client.Write(0, new byte[512], NbdCommandFlags.ForceUnitAccess));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Trim, 512, 1024, NbdCommandFlags.ForceUnitAccess));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.WriteZeroes, 0, 64 << 20, NbdCommandFlags.NoHole | NbdCommandFlags.FastZero | NbdCommandFlags.ForceUnitAccess));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0, NbdCommandFlags.ForceUnitAccess));
        Assert.Equal(
            [
                (BlockOperation.Write, BlockFlags.ForceUnitAccess, 0, 512),
                (BlockOperation.Discard, BlockFlags.ForceUnitAccess, 512, 1024),
                (BlockOperation.WriteZeroes, BlockFlags.ForceUnitAccess | BlockFlags.NoUnmap | BlockFlags.FastZero, 0, 64 << 20),
                (BlockOperation.Flush, BlockFlags.None, 0, 0),
            ],
            _device.Done);
    }

    [Theory]
    [InlineData(0, 80 << 20, 512u, 22u)]
    [InlineData(0, (80 << 20) - 512, 1024u, 22u)]
    [InlineData(0, -512, 512u, 22u)]
    [InlineData(0, 0, 0u, 22u)]
    [InlineData(0, 1, 512u, 22u)]
    [InlineData(0, 0, 513u, 22u)]
    [InlineData(0, 0, (32u << 20) + 512, 22u)]
    [InlineData(0, 0, uint.MaxValue, 22u)]
    [InlineData(4, 80 << 20, 512u, 22u)]
    [InlineData(6, 80 << 20, 512u, 28u)]
    [InlineData(6, long.MaxValue - 511, 512u, 28u)]
    [InlineData(3, 512, 0u, 22u)]
    [InlineData(5, 0, 512u, 22u)]
    [InlineData(7, 0, 512u, 22u)]
    [InlineData(99, 0, 512u, 22u)]
    public void A_bad_request_gets_an_error_and_the_connection_goes_on(int command, long offset, uint length, uint expected)
    {
        using NbdTestClient client = _server.Connect();
        Assert.Equal(expected, (uint)client.Do((NbdCommand)command, offset, length));
        Assert.Equal(0, _device.Submitted);
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Theory]
    [InlineData(80 << 20, 512, 28u)]
    [InlineData((80 << 20) - 512, 200_000, 28u)]
    [InlineData(100, 512, 22u)]
    [InlineData(0, (32 << 20) + 512, 22u)]
    public void The_payload_of_a_refused_write_is_skipped(long offset, int length, uint expected)
    {
        using NbdTestClient client = _server.Connect();
        Assert.Equal(expected, (uint)client.Write(offset, Pattern(length, 1)));
        Assert.Equal(NbdError.None, client.Write(0, new byte[512]));
    }

    [Theory]
    [InlineData(0, NbdCommandFlags.NoHole)]
    [InlineData(0, (NbdCommandFlags)4)]
    [InlineData(6, (NbdCommandFlags)8)]
    [InlineData(4, NbdCommandFlags.FastZero)]
    public void A_flag_that_does_not_belong_is_refused(int command, int flags)
    {
        using NbdTestClient client = _server.Connect();
        Assert.Equal(NbdError.Invalid, client.Do((NbdCommand)command, 0, 512, (NbdCommandFlags)flags));
    }

    [Fact]
    public void A_write_far_over_the_limit_ends_only_its_connection()
    {
        using NbdTestClient other = _server.Connect();
        using NbdTestClient client = _server.Connect();
        client.SendRequest(NbdCommand.Write, 1, 0, 1u << 30);
        client.ReadToEnd();
        Assert.Contains("1073741824", _server.Log, StringComparison.Ordinal);
        Assert.Equal(NbdError.None, other.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void A_wrong_magic_ends_the_connection_after_what_came_before_was_answered()
    {
        using NbdTestClient client = _server.Connect();
        client.SendRequest(NbdCommand.Flush, 7, 0, 0);
        client.SendRequest(NbdCommand.Flush, 8, 0, 0, magic: 0xdeadbeef);
        Assert.Equal((NbdError.None, 7UL), client.ReadReply());
        client.ReadToEnd();
        Assert.Contains("0xdeadbeef", _server.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void A_read_only_device_refuses_writes_and_keeps_the_connection()
    {
        var device = new TestDevice(new BlockDeviceInfo { SizeBytes = 1 << 20, ReadOnly = true, CanDiscard = true });
        using var server = new NbdTestServer(device);
        using NbdTestClient client = server.Connect();
        Assert.Equal(NbdError.NotPermitted, client.Write(0, Pattern(300 << 10, 1)));
        Assert.Equal(NbdError.NotPermitted, client.Do(NbdCommand.Trim, 0, 512));
        Assert.Equal(NbdError.NotPermitted, client.Do(NbdCommand.WriteZeroes, 0, 512));
        Assert.Equal(new byte[4096], client.ReadBlocks(0, 4096));
        Assert.Equal(
            NbdTransmissionFlags.HasFlags | NbdTransmissionFlags.ReadOnly | NbdTransmissionFlags.SendFlush |
            NbdTransmissionFlags.SendFua | NbdTransmissionFlags.CanMultiConn,
            NbdExportInfo.Describe(device.Info).Flags);
    }

    [Theory]
    [InlineData(1, 1u)]
    [InlineData(5, 5u)]
    [InlineData(12, 12u)]
    [InlineData(22, 22u)]
    [InlineData(28, 28u)]
    [InlineData(122, 28u)]
    [InlineData(75, 5u)]
    [InlineData(95, 5u)]
    [InlineData(108, 108u)]
    [InlineData(74, 5u)]
    [InlineData(11, 5u)]
    public void An_errno_of_the_device_becomes_an_nbd_error(int errno, uint expected)
    {
        using NbdTestClient client = _server.Connect();
        _device.Fails = errno;
        Assert.Equal(expected, (uint)client.Write(0, new byte[4096]));
        Assert.Equal(expected, (uint)client.Do(NbdCommand.Read, 0, 4096));
        _device.Fails = 0;
        Assert.Equal(new byte[4096], client.ReadBlocks(0, 4096));
    }

    [Fact]
    public void A_read_that_the_device_cut_short_is_an_error_and_shows_no_old_memory()
    {
        using NbdTestClient client = _server.Connect();
        _device.CutsReadsShort = true;
        Assert.Equal(NbdError.Io, client.Do(NbdCommand.Read, 0, 4096));
        Assert.Equal(NbdError.None, client.Do(NbdCommand.Flush, 0, 0));
    }

    [Fact]
    public void A_request_longer_than_the_device_takes_goes_in_pieces()
    {
        var device = new TestDevice(new BlockDeviceInfo { SizeBytes = 8 << 20, MaxTransferBytes = 100_000 }) { Depth = 3 };
        using var server = new NbdTestServer(device);
        using NbdTestClient client = server.Connect();
        byte[] bytes = Pattern(1 << 20, 3);
        Assert.Equal(NbdError.None, client.Write(512, bytes));
        Assert.True(client.ReadBlocks(512, bytes.Length).AsSpan().SequenceEqual(bytes));
        Assert.All(device.Done, done => Assert.InRange(done.Length, 512, 99_840));
        device.Fails = 28;
        int before = device.Submitted;
        Assert.Equal(NbdError.NoSpace, client.Write(512, bytes));
        Assert.InRange(device.Submitted - before, 1, 6);
    }

    [Fact]
    public void Replies_come_out_of_order_and_carry_their_handles()
    {
        using NbdTestClient client = _server.Connect();
        _device.Held = true;
        for (ulong handle = 0; handle < 100; handle++)
            client.SendRequest(NbdCommand.Write, handle, (long)handle * 512, 512, payload: Pattern(512, (int)handle));
        NbdTestServer.Until(() => _device.Submitted == 100, "all requests are at the device");
        _device.Held = false;
        var handles = new HashSet<ulong>();
        for (int i = 0; i < 100; i++)
        {
            (NbdError error, ulong handle) = client.ReadReply();
            Assert.Equal(NbdError.None, error);
            Assert.True(handles.Add(handle));
        }

        for (int i = 0; i < 100; i++)
            Assert.Equal(Pattern(512, i), client.ReadBlocks(i * 512, 512));
    }

    [Fact]
    public void More_requests_than_there_are_slots_and_memory_for_are_all_answered()
    {
        using NbdTestClient first = _server.Connect();
        using NbdTestClient second = _server.Connect();
        // 2 x 300 reads of 1 MiB want ten times the memory of the pump, and more slots than one client may have.
        foreach (NbdTestClient client in new[] { first, second })
        {
            for (ulong handle = 0; handle < 300; handle++)
                client.SendRequest(NbdCommand.Read, handle, (long)(handle % 80) << 20, 1 << 20);
        }

        foreach (NbdTestClient client in new[] { second, first })
        {
            var handles = new HashSet<ulong>();
            for (int i = 0; i < 300; i++)
            {
                (NbdError error, ulong handle) = client.ReadReply();
                Assert.Equal(NbdError.None, error);
                Assert.True(handles.Add(handle));
                client.Read(1 << 20);
            }
        }
    }

    [Fact]
    public void Serving_allocates_nothing_per_request()
    {
        using NbdTestClient client = _server.Connect();
        _device.Done.EnsureCapacity(10_000);
        byte[] block = new byte[4096];
        void Work()
        {
            for (int i = 0; i < 500; i++)
            {
                client.Write(i * 4096, block);
                client.ReadBlocks(i * 4096, 4096);
            }

            client.Do(NbdCommand.Trim, 1, 1);
        }

        Work();
        Allocations.None(Work, () => _server.Export.GetStatistics()[0].AllocatedBytes);
        PumpStatistics after = _server.Export.GetStatistics()[0];
        const int works = 1 + Allocations.Rounds;
        Assert.Equal(works * 1001, after.Requests);
        Assert.Equal(works, after.FailedRequests);
        Assert.Equal(works * 500 * 4096, after.BytesRead);
        Assert.Equal(works * 500 * 4096, after.BytesWritten);
    }
}
