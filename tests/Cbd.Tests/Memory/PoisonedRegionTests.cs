using System.Net.Sockets;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class PoisonedRegionTests : IDisposable
{
    private readonly TemporaryDirectory _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Truncated_region_reads_as_zeroes_and_says_so_and_others_live_on()
    {
        using RegionSource source = RegionSource.Open(_files.PathOf("region"), 1 << 20);
        using RegionSource otherSource = RegionSource.Open(_files.PathOf("other"), 1 << 20);
        using RegionMapping mapping = source.Map();
        using RegionMapping other = otherSource.Map();
        MappedMemory memory = mapping.Memory;
        memory.WriteRelease(0, 1);
        memory.WriteRelease(512 << 10, 2);
        other.Memory.WriteRelease(0, 3);
        source.Descriptor.Truncate(4096);
        Assert.False(mapping.IsPoisoned);
        Assert.Equal(1ul, memory.ReadAcquire(0));
        Assert.Equal(0ul, memory.ReadAcquire(512 << 10));
        Assert.True(mapping.IsPoisoned);
        Assert.Equal(0ul, memory.ReadAcquire(0));
        Assert.False(other.IsPoisoned);
        Assert.Equal(3ul, other.Memory.ReadAcquire(0));
        Assert.Equal(4096, source.Descriptor.GetStatus().SizeBytes);
    }

    [Theory]
    [InlineData("read")]
    [InlineData("write")]
    [InlineData("line load")]
    [InlineData("line store")]
    [InlineData("copy in")]
    [InlineData("copy out")]
    [InlineData("exchange")]
    public void Every_access_survives_truncation(string access)
    {
        using RegionSource source = RegionSource.Open(_files.PathOf("region"), 1 << 20);
        using RegionMapping mapping = source.Map();
        MappedMemory memory = mapping.Memory;
        source.Descriptor.Truncate(0);
        byte[] buffer = new byte[100_000];
        switch (access)
        {
            case "read":
                memory.Read(4096, buffer);
                break;
            case "write":
                memory.Write(4096, buffer);
                break;
            case "line load":
                memory.ReadLine(4096, out _);
                break;
            case "line store":
                memory.WriteLine(4096, default);
                break;
            case "copy in":
                memory.WriteWithCrc(4096, buffer, 0);
                break;
            case "copy out":
                memory.ReadWithCrc(4096, buffer, 0);
                break;
            default:
                memory.CompareExchange(4096, 1, 0);
                break;
        }

        Assert.True(mapping.IsPoisoned);
    }

    [Fact]
    public void A_region_mapped_where_a_poisoned_one_was_is_not_poisoned()
    {
        for (int i = 0; i < 3; i++)
        {
            using RegionSource source = RegionSource.Open(_files.PathOf($"region{i}"), 1 << 20);
            using RegionMapping mapping = source.Map();
            Assert.False(mapping.IsPoisoned);
            source.Descriptor.Truncate(0);
            Assert.Equal(0ul, mapping.Memory.ReadAcquire(0));
            Assert.True(mapping.IsPoisoned);
        }
    }

    [Theory]
    [InlineData("pread")]
    [InlineData("pwrite")]
    [InlineData("send")]
    [InlineData("recv")]
    public void System_calls_on_pages_that_are_gone_fail_and_nothing_dies(string call)
    {
        using RegionSource source = RegionSource.Open(_files.PathOf("region"), 1 << 20);
        using RegionMapping mapping = source.Map();
        MappedMemory memory = mapping.Memory;
        memory.WriteRelease(8192, 5);
        string path = _files.PathOf("other");
        File.WriteAllBytes(path, new byte[8192]);
        using Microsoft.Win32.SafeHandles.SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite);
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(_files.PathOf("socket")));
        listener.Listen();
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        client.Connect(listener.LocalEndPoint!);
        using Socket server = listener.Accept();
        server.Send(new byte[512]);
        source.Descriptor.Truncate(4096);
        Exception error = Record(() =>
        {
            Span<byte> page = memory.Span(8192, 4096);
            switch (call)
            {
                case "pread":
                    RandomAccess.Read(file, page, 0);
                    break;
                case "pwrite":
                    RandomAccess.Write(file, page, 0);
                    break;
                case "send":
                    client.Send(page);
                    break;
                default:
                    client.Receive(page);
                    break;
            }
        });
        Assert.Contains("Bad address", error.Message, StringComparison.Ordinal);
        // The kernel met it, not this process; its own next access does.
        Assert.False(mapping.IsPoisoned);
        Assert.Equal(0ul, memory.ReadAcquire(8192));
        Assert.True(mapping.IsPoisoned);
    }

    private static Exception Record(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            return e;
        }

        throw new InvalidOperationException("the system call succeeded");
    }

    [Fact]
    public void Sleeps_on_doorbells_that_are_gone_end_and_nothing_dies()
    {
        using RegionSource source = RegionSource.Open(_files.PathOf("region"), 1 << 20);
        using RegionMapping mapping = source.Map();
        MappedMemory memory = mapping.Memory;
        memory.WriteRelease(8192, 1);
        source.Descriptor.Truncate(4096);
        using var sleeper = new DoorbellSleeper();
        sleeper.Wait(memory, [8192], 1000);
        using DoorbellPoll? poll = DoorbellPoll.TryCreate();
        using var wake = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        poll?.Wait(memory, 8192, (int)wake.Handle, 1000);
        Assert.False(mapping.IsPoisoned);
    }

    [Fact]
    public void Runtime_exceptions_still_work_beside_the_guard()
    {
        using RegionSource source = RegionSource.Open(_files.PathOf("region"), 1 << 20);
        using RegionMapping mapping = source.Map();
        source.Descriptor.Truncate(0);
        _ = mapping.Memory.ReadAcquire(0);
        string? none = null;
        Assert.Throws<NullReferenceException>(() => none!.Length);
    }
}
