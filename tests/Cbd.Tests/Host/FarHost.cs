using Cbd.Host;
using Cbd.Host.Sessions;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Tests.Host;

/// <summary>
/// A host of another machine, as far as the others can see: its boot id is another, so that nothing but its beat says that it
/// lives, and nothing proves that it is dead. It does only what the test does.
/// </summary>
internal sealed class FarHost : IDisposable
{
    private readonly RegionSource _source;
    private readonly RegionMapping _region;
    private readonly Membership<MappedMemory, SafePolicy> _membership;

    /// <param name="deadMs">Its beat may stand still for so long before the others wonder.</param>
    public FarHost(string region, string name, int deadMs = TestNode.DeadMs)
    {
        _source = RegionSource.Open(region);
        _region = _source.Map();
        var identity = new HostIdentity
        {
            Name = name,
            BootId = Guid.NewGuid(),
            HostUuid = Guid.NewGuid(),
            Device = _region.Device,
            Inode = _region.Inode,
            Pid = 1,
            BeatMs = TestNode.BeatMs,
            DeadMs = deadMs,
        };
        _membership = new Membership<MappedMemory, SafePolicy>(
            "far", _region.Memory, TransportInfo.Read(_region.Memory, _region.SizeBytes).Geometry, identity, new OfdHostLocks(_region),
            new HostTimes(identity.BeatMs, identity.DeadMs), static () => new SessionCondition(), MonotonicClock.Milliseconds);
        Eventually.True(() => _membership.StepRegister(MonotonicClock.Milliseconds) == StepResult.Done);
    }

    public int Id => Session.Claim.Host;

    public HostSession<MappedMemory, SafePolicy> Session => _membership.Session;

    public bool Beat() => _membership.Beat(MonotonicClock.Milliseconds);

    /// <summary>A backend that this host has and does not serve.</summary>
    public BackendClaim<MappedMemory, SafePolicy> StartBackend(string identity = "far:1") => Session.Backends.Start(new BackendBody
    {
        Flags = BackendFlags.None,
        SizeBytes = 1 << 20,
        LogicalBlockBytes = 512,
        PhysicalBlockBytes = 4096,
        DiscardGranularityBytes = 4096,
        MaxTransferBytes = 1 << 20,
        DurabilityId = Guid.NewGuid(),
        Handlers = 1,
        Engine = BackendEngine.Direct,
        Identity = identity,
        Path = "/far",
    });

    /// <summary>A device that this host has and does not use.</summary>
    public BlkdevClaim<MappedMemory, SafePolicy> StartBlkdev(int backend)
    {
        BlkdevClaim<MappedMemory, SafePolicy> blkdev = Session.Blkdevs.Claim(backend, readOnly: false);
        blkdev.Activate([], "far");
        return blkdev;
    }

    public void Dispose()
    {
        Session.Claim.GiveUp();
        _region.Dispose();
        _source.Dispose();
    }
}
