using Cbd.Host.Backends;
using Cbd.Host.Sessions;
using Cbd.Host.Transports;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Protocol.Transports;

namespace Cbd.Simulation.Region;

/// <summary>
/// Another region on one machine, with two hosts: one serves a disk of the world, dies, and comes back; the other has a blkdev on it. Nothing
/// is read or written through it: what counts is which region has a disk while blkdevs of the other one wait for it. Its memory has
/// no faults.
/// </summary>
internal sealed class OtherRegion<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    private const string Path = "/other";

    private readonly World<TPolicy> _world;
    private readonly Dictionary<int, Guest> _locks = [];
    private readonly Guest _user;
    private Guest _server;
    private BlkdevClaim<ArrayMemory, TPolicy>? _blkdev;
    private int _guests;

    public OtherRegion(World<TPolicy> world, Machine machine)
    {
        _world = world;
        Machine = machine;
        var options = new RegionOptions { Hosts = 3, Backends = 2, Blkdevs = 2, Channels = 2, RingSlots = 2, ChannelSizeBytes = 24576 };
        Geometry = RegionPlan.Create(RegionPlan.MinimumBytes(options), options, Machine.NewId(world.Random));
        Memory = new ArrayMemory(Geometry.SizeBytes);
        _user = new Guest(this, "users");
        _server = new Guest(this, "disks");
        new Formatter<ArrayMemory, TPolicy>(Memory, new TransportInfo { Geometry = Geometry, Coherence = RegionCoherence.Hardware }, _user.Identity, _user, force: false).Step(machine.NowMs);
    }

    public Machine Machine { get; }

    public RegionGeometry Geometry { get; }

    public ArrayMemory Memory { get; }

    /// <summary>Its blkdev is on this disk, and goes on when that is served here again.</summary>
    public bool IsWaitedFor(SharedDisk<TPolicy> disk) => _blkdev is { } blkdev &&
        new ClaimWord(Memory.ReadAcquire(Geometry.BackendOffset(blkdev.Body.BackendId))) is var word && word.State != ClaimState.Free &&
        EntryBodies<ArrayMemory>.TryReadBackendRecord(Memory, Geometry, blkdev.Body.BackendId, word.Epoch, out BackendBody record, out _, out _) &&
        disk.IsOf(record) && !record.IsStopped;

    public void Turn()
    {
        _user.Turn();
        _server.Turn();
    }

    /// <summary>Its operator does something.</summary>
    public void Act()
    {
        if (!_user.IsUp || !_server.IsUp)
            return;
        switch (_world.Random.Next(8))
        {
            case < 3:
                _server.Start(_world.Disks[_world.Random.Next(1, _world.Disks.Count)]);
                break;
            case < 5 when _blkdev is null && _server.Backend is { Stage: BackendStage.Serving } backend:
                _blkdev = _user.Session.Blkdevs.Claim(backend.Backend, readOnly: false);
                _blkdev.Activate([], "other");
                break;
            case 5:
                _blkdev?.End();
                _blkdev = null;
                break;
            case 6:
                _server.Stop(force: _world.Random.Next(2) == 0);
                break;
            case 7:
                _server.Die();
                _server = new Guest(this, "disks");
                break;
        }
    }

    /// <summary>The region is gone, with all that its hosts had.</summary>
    public void End()
    {
        _blkdev = null;
        _server.Die();
        _user.Die();
    }

    /// <summary>One life of a daemon there.</summary>
    private sealed class Guest : IHostLocks
    {
        private readonly OtherRegion<TPolicy> _region;
        private readonly Membership<ArrayMemory, TPolicy> _membership;
        private SharedDisk<TPolicy>? _disk;
        private SimulatedDiskQueue? _queue;
        private string _diskIdentity = "";
        private bool _hasLock;
        private long _nextMs;
        private long _limitMs;

        public Guest(OtherRegion<TPolicy> region, string name)
        {
            _region = region;
            Identity = new HostIdentity
            {
                Name = name,
                BootId = region.Machine.BootId,
                HostUuid = new Guid(name == "users" ? 1 : 2, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0]),
                Device = 5,
                Inode = 78,
                Pid = ++region._guests,
                BeatMs = World<TPolicy>.BeatMs,
                DeadMs = World<TPolicy>.DeadMs,
            };
            _membership = new Membership<ArrayMemory, TPolicy>("other", region.Memory, region.Geometry, Identity, this, World<TPolicy>.Times, static () => new SessionCondition(), region.Machine.NowMs);
        }

        public HostIdentity Identity { get; }

        public HostSession<ArrayMemory, TPolicy> Session => _membership.Session;

        public bool IsUp => _membership.Stage == MembershipStage.Up;

        /// <summary>What it serves, or is about to; null for nothing.</summary>
        public BackendLife<ArrayMemory, TPolicy>? Backend { get; private set; }

        bool IHostLocks.TryLock(int host) => _region._locks.TryAdd(host, this) || _region._locks[host] == this;

        void IHostLocks.Unlock(int host) => _region._locks.Remove(host);

        bool IHostLocks.IsHeld(int host, ulong device, ulong inode) => _region._locks.ContainsKey(host);

        public void Turn()
        {
            long now = _region.Machine.NowMs;
            if (now < _nextMs)
                return;
            _nextMs = now + 1;
            if (!IsUp)
            {
                _membership.StepRegister(now);
                return;
            }

            _membership.Beat(now);
            Session.Look(sample: true, _region.Machine.NowMicroseconds);
            try
            {
                Serve(now);
            }
            catch (CbdException e)
            {
                _region._world.Trace($"the other region: {e.Message}");
                Drop(now);
            }
        }

        public void Start(SharedDisk<TPolicy> disk)
        {
            if (Backend is not null || !disk.Machines.Contains(_region.Machine.Number))
                return;
            _disk = disk;
            _diskIdentity = disk.Open(_region.Machine);
            _queue = new SimulatedDiskQueue(disk.Disk, _region._world.Region, Guid.Empty) { Machine = _region.Machine.Number };
            _limitMs = _region.Machine.NowMs + World<TPolicy>.DeadMs;
            Backend = new BackendLife<ArrayMemory, TPolicy>(Session, new BackendWish(null), _region.Machine.NowMs);
        }

        public void Stop(bool force)
        {
            if (Backend is not { Stage: BackendStage.Serving } backend || (!force && _region._blkdev is not null))
                return;
            backend.BeginStop(force, leaves: false, _region.Machine.NowMs);
            _region.Machine.EndReservation(_region.Geometry.RegionId, backend.Backend);
            Drop(_region.Machine.NowMs);
        }

        public void Die()
        {
            CloseDisk();
            Backend = null;
            foreach (int host in _region._locks.Where(l => l.Value == this).Select(l => l.Key).ToArray())
                _region._locks.Remove(host);
        }

        private void Serve(long now)
        {
            switch (Backend?.Stage)
            {
                case BackendStage.Opening when _hasLock || _disk!.TryLock(_region.Machine.Number, _queue!):
                    _hasLock = true;
                    _region._world.CheckReservation(_region.Machine, _diskIdentity, _region.Geometry.RegionId);
                    Backend.BeginClaim(_disk!.Describe(_queue!.Info.DurabilityId, _diskIdentity), now);
                    break;
                case BackendStage.Opening when now > _limitMs:
                    Drop(now);
                    break;
                case BackendStage.Claiming when Backend.TryClaim(now):
                    _region.Machine.Reserve(new DiskReservation(_diskIdentity, Path, _region.Geometry.RegionId, Backend.Backend, Identity.Name));
                    Backend.BeginServing(static _ => { }, now);
                    _region._world.StartedElsewhere(_disk!, _region.Machine);
                    break;
            }
        }

        private void Drop(long now)
        {
            CloseDisk();
            if (Backend is not { } backend)
                return;
            Backend = null;
            backend.EndStop(now);
            Session.Remove(backend);
        }

        private void CloseDisk()
        {
            if (_hasLock)
                _disk!.Unlock(_queue!);
            _hasLock = false;
        }
    }
}
