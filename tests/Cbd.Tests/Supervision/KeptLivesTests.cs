using Cbd.Blocks;
using Cbd.Host.Attachments;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Protocol.Records;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>Records of devices that came back from a store, with real sealed memory. The test is the manager of the store.</summary>
[Collection("environment of a store")]
public sealed class KeptLivesTests : IDisposable
{
    /// <summary>F_DUPFD: the duplicate is inherited, as a service manager's is.</summary>
    private const int DuplicateDescriptor = 0;

    private static readonly Guid s_host = new("11112222-3333-4444-5555-666677778888");

    private readonly DatagramSocket _manager;
    private readonly NotifySocket _notify;
    private readonly List<GivenDescriptor> _given = [];
    private readonly List<string> _log = [];

    public KeptLivesTests()
    {
        (DatagramSocket sender, _manager) = DatagramSocket.CreatePair();
        _notify = new NotifySocket(sender);
    }

    public void Dispose()
    {
        _notify.Dispose();
        _manager.Dispose();
    }

    [Fact]
    public void A_device_that_served_is_gone_on_with_under_its_name_once_and_may_be_tried_again()
    {
        Give(7, "a", DeviceRecordState.Serving);
        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        Assert.True(lives.Attachments.Has(7));
        Assert.Null(lives.TryTake("b"));
        KeptLife life = lives.TryTake("a")!;
        Assert.Equal((true, 7UL, "a"), (life.IsGiven, life.Attachment.Id, life.Record.Body.Name));
        Assert.Null(lives.TryTake("a"));
        lives.GiveBack(life);
        Assert.Same(life, lives.TryTake("a"));
        life.Attachment.Forget!([]);
        Assert.Equal(["FDSTOREREMOVE=1\nFDNAME=device-0000000000000007"], Sent());
        Assert.Empty(_log);
    }

    [Theory]
    [InlineData(DeviceRecordState.Starting)]
    [InlineData(DeviceRecordState.Stopping)]
    public void A_start_or_a_stop_that_a_death_cut_ends(object state)
    {
        Give(7, "a", (DeviceRecordState)state);
        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        Assert.Null(lives.TryTake("a"));
        Assert.False(lives.Attachments.Has(7));
        Assert.Single(_log);
        Assert.Equal(["FDSTOREREMOVE=1\nFDNAME=device-0000000000000007"], Sent());
    }

    [Theory]
    [InlineData(AttachChoice.Ublk)]
    [InlineData(AttachChoice.KernelNbd)]
    public void A_device_that_the_kernel_keeps_by_itself_is_gone_on_with_by_its_number(string kind)
    {
        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        KeptLife begun = lives.Begin("a", Guid.NewGuid(), 0, 2, kind)!;
        Assert.Equal((kind, false, false, -1), (begun.Kind, begun.Attachment.IsGiven, begun.Attachment.GoesOn, begun.Attachment.Number));
        begun.Attachment.StoreNumber!(5);
        Assert.Equal(5, begun.Record.Body.Number);
    }

    [Theory]
    [InlineData(5, true)]
    [InlineData(-1, false)]
    public void A_device_of_the_kernel_that_was_never_made_does_not_go_on(int number, bool goesOn)
    {
        Give(7, "a", DeviceRecordState.Serving, number: number);
        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        KeptLife? life = lives.TryTake("a");
        Assert.Equal(goesOn, life is not null);
        Assert.Equal(goesOn, lives.Attachments.Has(7));
        Assert.Equal(goesOn ? (AttachChoice.Ublk, 5) : default, life is null ? default : (life.Kind, life.Attachment.Number));
    }

    [Fact]
    public void What_is_not_wanted_ends_and_what_is_stays()
    {
        Give(7, "a", DeviceRecordState.Serving);
        Give(8, "b", DeviceRecordState.Serving);
        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        Assert.True(lives.EndUnwanted(name => name == "b"));
        Assert.False(lives.EndUnwanted(name => name == "b"));
        Assert.Equal((false, true), (lives.Attachments.Has(7), lives.Attachments.Has(8)));
        Assert.Null(lives.TryTake("a"));
        Assert.NotNull(lives.TryTake("b"));
    }

    [Theory]
    [InlineData("scribbled")]
    [InlineData("other life")]
    [InlineData("other host")]
    [InlineData("too short")]
    [InlineData("no record")]
    public void A_record_that_cannot_be_right_ends_its_device_alone_with_one_line(string fault)
    {
        Give(8, "b", DeviceRecordState.Serving);
        string name = "device-0000000000000007";
        if (fault == "too short")
        {
            using var memory = SealedMemory.Create("short", 4096);
            Give(name, memory);
        }
        else if (fault == "no record")
        {
            name = "inflight-0000000000000007-0";
            using var memory = SealedMemory.Create("record", 1 << 20);
            Give(name, memory);
        }
        else
        {
            Give(7, "a", DeviceRecordState.Serving, fault == "other life" ? 9UL : 7, fault == "other host" ? Guid.NewGuid() : s_host, fault == "scribbled");
        }

        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        Assert.Contains("cannot be gone on with", Assert.Single(_log), StringComparison.Ordinal);
        Assert.Equal([$"FDSTOREREMOVE=1\nFDNAME={name}"], Sent());
        Assert.Equal((false, true), (lives.Attachments.Has(7), lives.Attachments.Has(8)));
        Assert.Null(lives.TryTake("a"));
        Assert.NotNull(lives.TryTake("b"));
    }

    [Fact]
    public void A_new_device_is_known_before_it_is_kept_and_forgotten_if_it_does_not_start()
    {
        using DescriptorStore store = Open();
        using var lives = new KeptLives(store, s_host, _log.Add);
        KeptLife life = lives.Begin("a", Guid.NewGuid(), 3, 2)!;
        Assert.False(life.IsGiven);
        Assert.Equal((DeviceRecordState.Starting, 3, 2), (life.Record.Body.State, life.Record.Body.BackendId, life.Record.Body.Queues));
        Assert.True(lives.Attachments.Has(life.Attachment.Id));
        lives.GiveBack(life);
        Assert.False(lives.Attachments.Has(life.Attachment.Id));
    }

    [Theory]
    [InlineData("device-00000000000000ff", 0xffUL)]
    [InlineData("fuse-00000000000000ff-3", 0xffUL)]
    [InlineData("inflight-00000000000000ff-0", 0xffUL)]
    [InlineData("nbd-00000000000000ff", 0UL)]
    [InlineData("device-ff", 0UL)]
    [InlineData("device-zz000000000000ff", 0UL)]
    public void The_life_is_in_the_name(string name, ulong life) => Assert.Equal(life, KeptLives.LifeOf(name));

    private void Give(ulong id, string name, DeviceRecordState state, ulong? life = null, Guid? host = null, bool isScribbled = false, int number = 5)
    {
        using var memory = SealedMemory.Create(name, DeviceRecord.SizeFor(2));
        var body = new DeviceRecordBody
        {
            Life = life ?? id,
            RegionId = Guid.NewGuid(),
            HostUuid = host ?? s_host,
            BackendId = 0,
            BlkdevId = 0,
            BlkdevEpoch = 1,
            HostId = 1,
            HostEpoch = 1,
            Session = 1,
            Info = new BlockDeviceInfo { SizeBytes = 1 << 20, LogicalBlockBytes = 512, PhysicalBlockBytes = 4096, DiscardGranularityBytes = 4096, MaxTransferBytes = 1 << 20 },
            Queues = 2,
            Name = name,
            State = state,
            // It has no descriptors of its own.
            Kind = DeviceRecordKind.Ublk,
            Number = number,
        };
        using (var record = DeviceRecord.Create(memory.Buffer, body))
            Assert.Equal(state, record.Body.State);
        if (isScribbled)
            memory.Buffer.GetSpan(1024, 2048).Fill(0x5a);
        Give($"device-{id:x16}", memory);
    }

    /// <summary>A duplicate, as the next process gets it.</summary>
    private void Give(string name, SealedMemory memory) =>
        _given.Add(new GivenDescriptor(name, LibC.FCntl(memory.Descriptor, DuplicateDescriptor, 3)));

    private DescriptorStore Open()
    {
        Environment.SetEnvironmentVariable("FDSTORE", "16");
        DescriptorStore store = DescriptorStore.TryFromEnvironment(_notify, _given, out IReadOnlyList<GivenDescriptor> others, _log.Add)!;
        Assert.Empty(others);
        return store;
    }

    private List<string> Sent()
    {
        var texts = new List<string>();
        byte[] buffer = new byte[8192];
        while (_manager.TryReceive(buffer, out ReceivedDatagram datagram))
            texts.Add(System.Text.Encoding.UTF8.GetString(buffer, 0, datagram.Length));
        return texts;
    }
}
