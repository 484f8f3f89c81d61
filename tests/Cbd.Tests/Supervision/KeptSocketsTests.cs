using System.Net;
using System.Net.Sockets;
using Cbd.Exports.Nbd;
using Cbd.Host;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>Listening sockets that come back to the next daemon. The test is the manager, on a thread, with what it keeps.</summary>
[Collection("environment of a store")]
public sealed class KeptSocketsTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly List<string> _lines = [];
    private readonly DatagramSocket _manager;
    private readonly NotifySocket _notify;
    private readonly Thread _thread;
    private readonly List<string> _removed = [];
    private readonly PollWake _end = new();
    private volatile bool _isSlow;

    public KeptSocketsTests()
    {
        (DatagramSocket sender, _manager) = DatagramSocket.CreatePair();
        _notify = new NotifySocket(sender);
        _thread = new Thread(Manage);
        _thread.Start();
    }

    public void Dispose()
    {
        _end.Signal();
        _thread.Join();
        _end.Dispose();
        _notify.Dispose();
        _manager.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void A_socket_that_is_bound_where_the_device_wants_it_is_taken_once()
    {
        using KeptSockets kept = Back(("cbd0", Listener("a")));
        FileStatus file = Status("a");
        using StreamSocket? taken = kept.TryTake("cbd0", _directory.PathOf("a"), null, file);
        Assert.NotNull(taken);
        Assert.Null(kept.TryTake("cbd0", _directory.PathOf("a"), null, file));
        Assert.Empty(_lines);
        Assert.Empty(_removed);
    }

    [Fact]
    public void A_start_that_came_to_nothing_leaves_the_socket_to_the_next_one()
    {
        using KeptSockets kept = Back(("cbd0", Listener("a")));
        kept.GiveBack("cbd0", kept.TryTake("cbd0", _directory.PathOf("a"), null, Status("a"))!);
        using StreamSocket? again = kept.TryTake("cbd0", _directory.PathOf("a"), null, Status("a"));
        Assert.NotNull(again);
    }

    [Fact]
    public void A_socket_that_is_bound_elsewhere_is_closed_and_one_line_says_so()
    {
        StreamSocket elsewhere = Listener("elsewhere");
        using KeptSockets kept = Back(("cbd0", elsewhere));
        using StreamSocket other = Listener("a");
        Assert.Null(kept.TryTake("cbd0", _directory.PathOf("a"), null, Status("a")));
        Assert.Equal(["nbd-cbd0"], _removed);
        Assert.Contains($"is bound to '{_directory.PathOf("elsewhere")}', and not to '{_directory.PathOf("a")}'", Assert.Single(_lines), StringComparison.Ordinal);
        // Nobody listens there any more.
        Assert.Equal(Errno.ECONNREFUSED, StreamSocket.Probe(Native("elsewhere")));
    }

    [Fact]
    public void A_socket_whose_file_was_replaced_is_of_no_use()
    {
        using KeptSockets kept = Back(("cbd0", Listener("a")));
        File.Delete(_directory.PathOf("a"));
        Assert.Null(kept.TryTake("cbd0", _directory.PathOf("a"), null, null));
        Assert.Contains("is not there any more", Assert.Single(_lines), StringComparison.Ordinal);
    }

    [Fact]
    public void A_TCP_socket_is_taken_by_its_address_and_any_port_is_the_one_it_has()
    {
        SocketAddress native = new IPEndPoint(IPAddress.Loopback, 0).Serialize();
        StreamSocket Bound() => StreamSocket.TryListen(native.Buffer.Span[..native.Size], 4, out _)!;
        using KeptSockets kept = Back(("any", Bound()), ("same", Bound()), ("other", Bound()));
        using StreamSocket? any = kept.TryTake("any", null, new IPEndPoint(IPAddress.Loopback, 0), null);
        Assert.NotNull(any);
        Assert.Null(kept.TryTake("other", null, new IPEndPoint(IPAddress.Loopback, any.GetLocalPort()), null));
        Assert.Null(kept.TryTake("same", null, new IPEndPoint(IPAddress.Parse("127.0.0.2"), 0), null));
        Assert.Equal(2, _lines.Count);
    }

    [Fact]
    public void What_nobody_wants_is_closed_and_its_file_removed()
    {
        using KeptSockets kept = Back(("gone", Listener("gone")), ("wanted", Listener("wanted")));
        kept.CloseUnwanted(device => device == "wanted");
        Assert.False(File.Exists(_directory.PathOf("gone")));
        Assert.True(File.Exists(_directory.PathOf("wanted")));
        Assert.Equal(["nbd-gone"], _removed);
        using StreamSocket? wanted = kept.TryTake("wanted", _directory.PathOf("wanted"), null, Status("wanted"));
        Assert.NotNull(wanted);
    }

    [Fact]
    public void The_file_of_somebody_else_in_its_place_stays()
    {
        const int netAdmin = 12;
        Assert.SkipUnless(Privilege.Has(netAdmin), "only with CAP_NET_ADMIN is the file of a socket known");
        using KeptSockets kept = Back(("gone", Listener("gone")));
        File.Delete(_directory.PathOf("gone"));
        using StreamSocket other = Listener("gone");
        kept.CloseUnwanted(static _ => false);
        Assert.Equal(0, StreamSocket.Probe(Native("gone")));
    }

    [Fact]
    public void The_end_of_a_device_waits_until_the_manager_has_closed_its_socket()
    {
        using KeptSockets kept = Back(("cbd0", Listener("a")));
        NbdListener listener = Adopt(kept, AccessOptions.OwnerOnly);
        _isSlow = true;
        listener.Dispose();
        Assert.Equal(["nbd-cbd0"], _removed);
        Assert.False(File.Exists(_directory.PathOf("a")));
    }

    [Fact]
    public void The_mode_of_a_socket_that_came_back_is_the_one_that_is_asked_for_now()
    {
        const uint forGroup = 0x1b0; // 0660
        using KeptSockets kept = Back(("cbd0", Listener("a")));
        Assert.Equal(AccessOptions.OwnerOnly, Status("a").Permissions);
        using NbdListener listener = Adopt(kept, forGroup);
        Assert.Equal(forGroup, Status("a").Permissions);
        Assert.Empty(_removed);
    }

    [Fact]
    public void The_owner_of_a_socket_that_came_back_is_the_one_that_is_asked_for_now()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root can give files away");
        const uint nobody = 65534;
        using KeptSockets kept = Back(("cbd0", Listener("a")));
        Adopt(kept, AccessOptions.OwnerOnly, new FileOwner(nobody, nobody)).GiveUp();
        Assert.Equal(nobody, Status("a").OwnerId);
        using NbdListener listener = Adopt(kept, AccessOptions.OwnerOnly);
        Assert.Equal(ControlSyscalls.EffectiveUserId, Status("a").OwnerId);
    }

    [Fact]
    public void What_does_not_listen_is_closed_and_removed_from_the_store()
    {
        (StreamSocket ours, FileDescriptor other) = StreamSocket.CreatePair();
        ours.Dispose();
        using var store = Given(("nbd-cbd0", other));
        using var kept = new KeptSockets(store, _lines.Add);
        Assert.Equal(["descriptor 'nbd-cbd0' of the descriptor store is not listening: it is closed"], _lines);
        store.Confirm();
        Assert.Equal(["nbd-cbd0"], _removed);
    }

    private NbdListener Adopt(KeptSockets kept, uint mode, FileOwner? owner = null) => NbdListener.Bind(
        NbdAddress.Parse($"unix:{_directory.PathOf("a")}", insecure: false), withTls: false, new SocketOptions { Device = "cbd0", Mode = mode, Owner = owner }, kept);

    /// <summary>Sockets that came back under the names of these devices.</summary>
    private KeptSockets Back(params (string Device, StreamSocket Socket)[] sockets)
    {
        var descriptors = sockets.Select(pair => ($"nbd-{pair.Device}", pair.Socket.Duplicate().File)).ToArray();
        foreach ((_, StreamSocket socket) in sockets)
            socket.Dispose();
        return new KeptSockets(Given(descriptors), _lines.Add);
    }

    private DescriptorStore Given(params (string Name, FileDescriptor Descriptor)[] descriptors)
    {
        foreach ((_, FileDescriptor descriptor) in descriptors)
            descriptor.SetInherited(true);
        Environment.SetEnvironmentVariable("FDSTORE", "16");
        DescriptorStore store = DescriptorStore.TryFromEnvironment(
            _notify, [.. descriptors.Select(pair => new GivenDescriptor(pair.Name, pair.Descriptor.Number))], out _, _lines.Add)!;
        foreach ((_, FileDescriptor descriptor) in descriptors)
            descriptor.SetHandleAsInvalid();
        return store;
    }

    private void Manage()
    {
        using var poll = new EventPoll(2);
        poll.Add(_manager.Descriptor, 1);
        poll.Add(_end, 2);
        var buffer = new byte[1024];
        while (true)
        {
            int count = poll.Wait(-1);
            for (int i = 0; i < count; i++)
            {
                _ = poll.GetEvent(i, out ulong token);
                if (token == 2)
                    return;
            }

            while (_manager.TryReceive(buffer, out ReceivedDatagram datagram))
            {
                if (_isSlow)
                    Thread.Sleep(50);
                string text = System.Text.Encoding.UTF8.GetString(buffer, 0, datagram.Length);
                if (text.StartsWith("FDSTOREREMOVE=1\nFDNAME=", StringComparison.Ordinal))
                    _removed.Add(text["FDSTOREREMOVE=1\nFDNAME=".Length..]);
                foreach (FileDescriptor descriptor in datagram.Descriptors)
                    descriptor.Dispose();
            }
        }
    }

    private byte[] Native(string name)
    {
        SocketAddress native = new UnixDomainSocketEndPoint(_directory.PathOf(name)).Serialize();
        return native.Buffer.Span[..native.Size].ToArray();
    }

    private StreamSocket Listener(string name) => StreamSocket.TryListen(Native(name), 4, out _)!;

    private FileStatus Status(string name)
    {
        Assert.Equal(0, FileStatus.TryGet(_directory.PathOf(name), out FileStatus status, followLinks: false));
        return status;
    }
}
