using System.Text;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>A process's side of a descriptor store, with real sockets and descriptors. The test is the manager.</summary>
[Collection("environment of a store")]
public sealed class DescriptorStoreTests : IDisposable
{
    private const int PatientMs = 60_000;

    private readonly DatagramSocket _manager;
    private readonly NotifySocket _notify;
    private readonly TemporaryDirectory _directory = new();
    private int _filled;

    public DescriptorStoreTests()
    {
        (DatagramSocket sender, _manager) = DatagramSocket.CreatePair();
        _notify = new NotifySocket(sender);
    }

    public void Dispose()
    {
        _notify.Dispose();
        _manager.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void A_kept_descriptor_arrives_under_its_name_with_the_process_that_sent_it()
    {
        using var store = new DescriptorStore(_notify, 4);
        using StreamSocket listener = Listener("s");
        store.Keep("nbd-a", listener.File);
        (string text, IReadOnlyList<FileDescriptor> descriptors, int process) = Receive();
        Assert.Equal("FDSTORE=1\nFDNAME=nbd-a\nFDPOLL=0", text);
        Assert.Equal(Environment.ProcessId, process);
        using StreamSocket kept = StreamSocket.TryOwnListening(Assert.Single(descriptors), out _)!;
        Assert.Equal(_directory.PathOf("s"), kept.GetPlace()!.UnixPath);
    }

    [Fact]
    public void What_is_not_what_its_name_says_is_refused_and_never_sent()
    {
        using var store = new DescriptorStore(_notify, 4);
        using FileStream file = File.Create(_directory.PathOf("file"));
        using var descriptor = FileDescriptor.Open(_directory.PathOf("file"), OpenFlags.ReadWrite);
        foreach (string name in new[] { "nbd-a", "fuse-0123456789abcdef-0", "inflight-0123456789abcdef-0", "device-0123456789abcdef" })
            Assert.Contains("is something else and not", Assert.Throws<CbdException>(() => store.Keep(name, descriptor)).Message, StringComparison.Ordinal);
        Assert.False(_manager.TryReceive(new byte[100], out _));
    }

    [Theory]
    [InlineData("stored")]
    [InlineData("nbd-")]
    [InlineData("nbd-a:b")]
    [InlineData("nbd-a\nFDSTOREREMOVE=1")]
    [InlineData("nbd-0123456789012345678901234567890123456789012345678901234567890123456789")]
    public void Names_that_are_none_are_refused(string name)
    {
        using var store = new DescriptorStore(_notify, 4);
        using StreamSocket listener = Listener("s");
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => store.Keep(name, listener.File)).Kind);
        Assert.False(_manager.TryReceive(new byte[200], out _));
    }

    [Fact]
    public void A_store_that_is_full_is_known_before_anything_is_sent()
    {
        using var store = new DescriptorStore(_notify, 1);
        using StreamSocket listener = Listener("s");
        store.Keep("nbd-a", listener.File);
        Drop(Receive());
        CbdException full = Assert.Throws<CbdException>(() => store.Keep("nbd-b", listener.File));
        Assert.Equal(CbdErrorKind.Exhausted, full.Kind);
        Assert.False(_manager.TryReceive(new byte[100], out _));
        store.Remove("nbd-a");
        Assert.Equal("FDSTOREREMOVE=1\nFDNAME=nbd-a", Receive().Text);
        store.Keep("nbd-b", listener.File);
        Drop(Receive());
    }

    [Fact]
    public void One_name_is_kept_once()
    {
        using var store = new DescriptorStore(_notify, 4);
        using StreamSocket listener = Listener("s");
        store.Keep("nbd-a", listener.File);
        Drop(Receive());
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => store.Keep("nbd-a", listener.File)).Kind);
        Assert.False(_manager.TryReceive(new byte[100], out _));
    }

    [Fact]
    public async Task Confirming_waits_until_the_manager_has_closed_the_pipe()
    {
        using var store = new DescriptorStore(_notify, 4, PatientMs);
        Task confirming = Task.Run(() => store.Confirm());
        (string text, IReadOnlyList<FileDescriptor> descriptors, _) = Await();
        Assert.Equal("BARRIER=1", text);
        using FileDescriptor pipe = Assert.Single(descriptors);
        Assert.Equal(DescriptorKind.Pipe, DescriptorKinds.Of(pipe));
        Assert.False(confirming.IsCompleted);
        pipe.Dispose();
        await confirming;
    }

    [Fact]
    public async Task What_the_manager_refused_is_told_when_it_is_confirmed_and_is_not_in_the_store()
    {
        using var store = new DescriptorStore(_notify, 1, PatientMs);
        using StreamSocket listener = Listener("s");
        store.Keep("nbd-a", listener.File);
        Drop(Receive());
        Task confirming = Task.Run(() => store.Confirm("nbd-a"));
        using (FileDescriptor pipe = Assert.Single(Await().Descriptors))
            PipeEnds.WriteSome(pipe, "nbd-x: of somebody else\nnbd-a: there is no room\n"u8);
        CbdException refused = await Assert.ThrowsAsync<CbdException>(() => confirming);
        Assert.Equal(CbdErrorKind.Exhausted, refused.Kind);
        Assert.Equal("the descriptor store refused 'nbd-a': there is no room", refused.Message);
        // The room is free again.
        store.Keep("nbd-b", listener.File);
        Drop(Receive());
    }

    [Fact]
    public async Task What_was_refused_is_told_to_who_sent_it_whoever_confirms_first()
    {
        using var store = new DescriptorStore(_notify, 4, PatientMs);
        using StreamSocket listener = Listener("s");
        store.Keep("nbd-a", listener.File);
        store.Keep("nbd-b", listener.File);
        Drop(Receive());
        Drop(Receive());
        Task first = Task.Run(() => store.Confirm("nbd-b"));
        using (FileDescriptor pipe = Assert.Single(Await().Descriptors))
            PipeEnds.WriteSome(pipe, "nbd-a: no\n"u8);
        await first;
        Task second = Task.Run(() => store.Confirm("nbd-a"));
        Drop(Await());
        Assert.Contains("'nbd-a': no", (await Assert.ThrowsAsync<CbdException>(() => second)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_manager_that_does_not_answer_ends_the_wait()
    {
        using var store = new DescriptorStore(_notify, 4, confirmMs: 20);
        Assert.Equal(CbdErrorKind.TimedOut, Assert.Throws<CbdException>(() => store.Confirm()).Kind);
        Drop(Receive());
    }

    [Fact]
    public void What_the_manager_must_know_is_said_until_it_took_it_in_its_order()
    {
        Fill();
        _notify.SayForSure("READY=1");
        _notify.SayForSure("STATUS=a");
        Empty();
        Assert.Equal("READY=1", Await().Text);
        Assert.Equal("STATUS=a", Await().Text);
        // Nobody waits for what is said for the moment.
        Fill();
        Assert.False(_notify.Say("WATCHDOG=1"));
        // The end does not wait either.
        _notify.SayForSure("STATUS=b");
        _notify.Dispose();
    }

    [Fact]
    public void A_removal_that_found_no_room_comes_before_what_is_kept_next()
    {
        using var store = new DescriptorStore(_notify, 4, sendMs: 20);
        using StreamSocket listener = Listener("s");
        store.Keep("nbd-a", listener.File);
        Drop(Receive());
        Fill();
        store.Remove("nbd-a");
        Assert.Equal(CbdErrorKind.TimedOut, Assert.Throws<CbdException>(() => store.Keep("nbd-b", listener.File)).Kind);
        Empty();
        store.Keep("nbd-b", listener.File);
        Assert.Equal("FDSTOREREMOVE=1\nFDNAME=nbd-a", Receive().Text);
        (string text, IReadOnlyList<FileDescriptor> descriptors, _) = Receive();
        Assert.Equal("FDSTORE=1\nFDNAME=nbd-b\nFDPOLL=0", text);
        Assert.Single(descriptors).Dispose();
    }

    [Fact]
    public void The_end_of_the_manager_is_told_once()
    {
        (DatagramSocket sender, DatagramSocket receiver) = DatagramSocket.CreatePair();
        int told = 0;
        using var notify = new NotifySocket(sender, () => told++);
        Assert.True(notify.Say("WATCHDOG=1"));
        receiver.Dispose();
        Assert.Equal(0, told);
        Assert.False(notify.Say("WATCHDOG=1"));
        notify.SayForSure("READY=1");
        Assert.Equal(1, told);
    }

    [Theory]
    [InlineData("vsock:2:1234")]
    [InlineData("relative")]
    [InlineData("@")]
    [InlineData("/missing/socket")]
    public void A_manager_at_an_address_of_an_unknown_form_is_none(string address)
    {
        Environment.SetEnvironmentVariable("NOTIFY_SOCKET", address);
        Assert.Null(NotifySocket.TryFromEnvironment());
        Assert.Null(Environment.GetEnvironmentVariable("NOTIFY_SOCKET"));
    }

    [Theory]
    [InlineData("0", null)]
    [InlineData("999", null)]
    [InlineData("-5", null)]
    [InlineData("soon", null)]
    [InlineData("3000000", 3000L)]
    public void A_watchdog_without_a_time_is_none(string text, long? milliseconds)
    {
        Environment.SetEnvironmentVariable("WATCHDOG_USEC", text);
        Assert.Equal(milliseconds, Watchdog.TakeFromEnvironment());
    }

    [Fact]
    public void A_manager_that_has_ended_leaves_no_store()
    {
        using var store = new DescriptorStore(_notify, 4);
        using StreamSocket listener = Listener("s");
        _manager.Dispose();
        Assert.False(store.IsGone);
        Assert.Throws<StoreGoneException>(() => store.Keep("nbd-a", listener.File));
        Assert.True(store.IsGone);
        Assert.Throws<StoreGoneException>(() => store.Confirm());
        store.Remove("nbd-a");
    }

    [Fact]
    public void Without_a_name_of_the_store_what_was_given_is_left_to_others()
    {
        Environment.SetEnvironmentVariable("FDSTORE", "8");
        GivenDescriptor[] given = [new("control", 900), new("nbd-a", 901)];
        List<string> lines = [];
        using DescriptorStore store = DescriptorStore.TryFromEnvironment(_notify, given, out IReadOnlyList<GivenDescriptor> others, lines.Add)!;
        Assert.Equal([given[0]], others);
        Assert.Empty(store.Given);
        Assert.Equal(["descriptor 901 ('nbd-a') of the descriptor store is not open: it is left out"], lines);
        Assert.Null(Environment.GetEnvironmentVariable("FDSTORE"));
        // Without a store all of them are sockets for the daemon.
        Assert.Null(DescriptorStore.TryFromEnvironment(_notify, given, out others, lines.Add));
        Assert.Equal(given, others);
    }

    [Fact]
    public void A_store_whose_manager_cannot_be_reached_is_none_and_one_line_says_so()
    {
        Environment.SetEnvironmentVariable("FDSTORE", "8");
        List<string> lines = [];
        Assert.Null(DescriptorStore.TryFromEnvironment(null, [], out _, lines.Add));
        Assert.Contains("cannot be reached at NOTIFY_SOCKET", Assert.Single(lines), StringComparison.Ordinal);
    }

    /// <summary>Sends until no datagram fits any more.</summary>
    private void Fill()
    {
        while (_notify.TrySend("STATUS=", null, 0) == 0)
            _filled++;
    }

    /// <summary>Takes what was in the queue when it was full.</summary>
    private void Empty()
    {
        for (; _filled > 0; _filled--)
            Drop(Receive());
    }

    private StreamSocket Listener(string name)
    {
        System.Net.SocketAddress native = new System.Net.Sockets.UnixDomainSocketEndPoint(_directory.PathOf(name)).Serialize();
        return StreamSocket.TryListen(native.Buffer.Span[..native.Size], 4, out _)!;
    }

    private static void Drop((string Text, IReadOnlyList<FileDescriptor> Descriptors, int ProcessId) message)
    {
        foreach (FileDescriptor descriptor in message.Descriptors)
            descriptor.Dispose();
    }

    private (string Text, IReadOnlyList<FileDescriptor> Descriptors, int ProcessId) Receive()
    {
        var buffer = new byte[1024];
        Assert.True(_manager.TryReceive(buffer, out ReceivedDatagram datagram));
        return (Encoding.UTF8.GetString(buffer, 0, datagram.Length), datagram.Descriptors, datagram.ProcessId);
    }

    private (string Text, IReadOnlyList<FileDescriptor> Descriptors, int ProcessId) Await()
    {
        using var poll = new EventPoll(1);
        poll.Add(_manager.Descriptor, 1);
        Assert.Equal(1, poll.Wait(PatientMs * 1_000_000L));
        return Receive();
    }
}
