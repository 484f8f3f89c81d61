using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Sessions;

/// <summary>
/// One registration of this host on one region: the claim of its entry, and the backends and devices that it has under
/// that claim. A host that was cleared gets another one. A state machine without threads, clocks and waiting; one thread
/// at a time, except for <see cref="Condition"/> and <see cref="AnnounceChange"/>.
/// </summary>
internal sealed class HostSession<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly List<BackendLife<TMemory, TPolicy>> _backends = [];
    private readonly List<DeviceLife<TMemory, TPolicy>> _devices = [];
    private readonly IReadOnlyList<DeviceLife<TMemory, TPolicy>> _lostDevices;
    private readonly string _name;
    private readonly ulong[] _seenChanges;
    private ulong _announcements;

    /// <param name="name">What messages call it: "transport 0".</param>
    /// <param name="lostDevices">Devices of earlier sessions, whose ids are in use here still.</param>
    public HostSession(
        string name, IReadOnlyList<DeviceLife<TMemory, TPolicy>> lostDevices, TMemory memory, HostClaim<TMemory, TPolicy> claim, LivenessTracker<TMemory, TPolicy> tracker,
        Clearing<TMemory, TPolicy> clearing, SessionCondition condition, HostTimes times)
    {
        _name = name;
        _lostDevices = lostDevices;
        Memory = memory;
        Claim = claim;
        Tracker = tracker;
        Clearing = clearing;
        Condition = condition;
        Times = times;
        Backends = new BackendRegistry<TMemory, TPolicy>(memory, claim, tracker);
        Blkdevs = new BlkdevRegistry<TMemory, TPolicy>(memory, claim, tracker);
        _seenChanges = new ulong[claim.Geometry.HostCount];
    }

    public TMemory Memory { get; }

    public RegionGeometry Geometry => Claim.Geometry;

    /// <summary>This host's claim of its entry.</summary>
    public HostClaim<TMemory, TPolicy> Claim { get; }

    public LivenessTracker<TMemory, TPolicy> Tracker { get; }

    public Clearing<TMemory, TPolicy> Clearing { get; }

    /// <summary>Whether anything may be stored into the region.</summary>
    public SessionCondition Condition { get; }

    public HostTimes Times { get; }

    /// <summary>The backend entries of all hosts.</summary>
    public BackendRegistry<TMemory, TPolicy> Backends { get; }

    /// <summary>The blkdev entries of all hosts.</summary>
    public BlkdevRegistry<TMemory, TPolicy> Blkdevs { get; }

    /// <summary>This host's backends, those that start and stop included.</summary>
    public IReadOnlyList<BackendLife<TMemory, TPolicy>> OwnBackends => _backends;

    /// <summary>This host's devices, those that start and stop included.</summary>
    public IReadOnlyList<DeviceLife<TMemory, TPolicy>> OwnDevices => _devices;

    /// <summary>
    /// Whether this host has the record of an attachment, and adopts its orphan sooner or later. Orphans of this host of which it says
    /// no are given up. Null: they are left alone.
    /// </summary>
    public Func<ulong, bool>? KeepsLife { get; set; }

    /// <summary>Another host cleared this claim: nothing of it is stored any more.</summary>
    public bool IsCleared { get; private set; }

    /// <summary>Throws if nothing may be claimed or changed under this registration any more.</summary>
    public void CheckUsable()
    {
        if (IsCleared)
            throw new CbdException(CbdErrorKind.Failed, $"{_name}: {Condition.Failure}: try again in a moment");
        if (Condition.Failure is { } failure)
            throw new CbdException(CbdErrorKind.Failed, $"{_name} failed: {failure}: unregister it (tp-unreg) and register again");
    }

    public void Add(BackendLife<TMemory, TPolicy> backend) => _backends.Add(backend);

    public void Add(DeviceLife<TMemory, TPolicy> device) => _devices.Add(device);

    public void Remove(BackendLife<TMemory, TPolicy> backend) => _backends.Remove(backend);

    public void Remove(DeviceLife<TMemory, TPolicy> device) => _devices.Remove(device);

    /// <summary>
    /// The heartbeat of the host and of all it has; gives back what is proven harmless. False if the entry is not this claim
    /// any more.
    /// </summary>
    public bool Beat(long nowMs)
    {
        if (!Claim.Beat())
            return false;
        foreach (BackendLife<TMemory, TPolicy> backend in _backends)
            backend.Beat();
        foreach (DeviceLife<TMemory, TPolicy> device in _devices)
            device.Beat();
        Clearing.Sweep(nowMs);
        return true;
    }

    /// <summary>
    /// One look around: clears hosts that are proven dead, hands offered channels to backends, lets devices look at their
    /// backends, and drives devices that start or stop.
    /// </summary>
    /// <param name="sample">Judge the other hosts, and look at everything, whether something was announced or not.</param>
    /// <param name="nowMicroseconds">This host's monotonic clock.</param>
    public void Look(bool sample, long nowMicroseconds)
    {
        long nowMs = nowMicroseconds / 1000;
        if (sample && Clearing.ClearDeadHosts(nowMs))
            AnnounceChange();
        if (sample)
            GiveUpOrphans();
        if (_backends.Count > 0 && (TakeNews() || sample))
            LookForOffers();
        foreach (DeviceLife<TMemory, TPolicy> device in _devices)
        {
            device.Watch(nowMs);
            if (device.Stage is DeviceStage.Attaching or DeviceStage.Closing)
                device.Step(nowMicroseconds);
        }
    }

    /// <summary>Whether another host has announced something that this one looks for and has not seen.</summary>
    public bool HasNews()
    {
        for (int host = 0; host < _seenChanges.Length && _backends.Count > 0; host++)
        {
            if (Memory.ReadAcquire(Geometry.HostOffset(host) + HostEntry.ChangeCounterOffset) != _seenChanges[host])
                return true;
        }

        return false;
    }

    /// <summary>Whether another host has announced anything since the last call.</summary>
    public bool TakeAnnouncements()
    {
        ulong sum = 0;
        for (int host = 0; host < Geometry.HostCount; host++)
        {
            if (host != Claim.Host)
                sum += Memory.ReadAcquire(Geometry.HostOffset(host) + HostEntry.ChangeCounterOffset);
        }

        bool isNew = sum != _announcements;
        _announcements = sum;
        return isNew;
    }

    /// <summary>Tells the other hosts to look at this host's channels and entries, and wakes those of this kernel. Any thread.</summary>
    public void AnnounceChange()
    {
        if (Condition.IsFenced)
            return;
        Claim.AnnounceChange();
        for (int host = 0; host < Geometry.HostCount; host++)
            Doorbells.Ring(Memory, Geometry.HostOffset(host) + HostEntry.DoorbellOffset);
    }

    /// <summary>Nothing of this host is stored into the region from here on; users get EIO. False if it had failed before.</summary>
    /// <param name="why">The reason, in one line.</param>
    /// <param name="cleared">Another host took this one for dead: it may register anew.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public bool Fail(string why, bool cleared, long nowMs)
    {
        if (!Condition.TryFail(why))
            return false;
        IsCleared = cleared;
        foreach (DeviceLife<TMemory, TPolicy> device in _devices)
            device.Fail($"{_name} failed: {why}", nowMs);
        return true;
    }

    /// <summary>This host still has that backend id in use, whatever its entry says.</summary>
    public bool UsesBackend(int backend) => _backends.Exists(b => b.Stage is not BackendStage.Over && b.Backend == backend);

    /// <summary>This host still has that blkdev id in use, whatever its entry says.</summary>
    public bool UsesBlkdev(int blkdev) =>
        _devices.Exists(d => d.Blkdev == blkdev) || _lostDevices.Any(d => d.Blkdev == blkdev);

    /// <summary>Whether the entry of a backend is free.</summary>
    public bool IsBackendFree(int backend) =>
        ClaimOperations<TMemory, TPolicy>.Read(Memory, Geometry.BackendOffset(backend)).State == ClaimState.Free;

    /// <summary>A blkdev on the backend that goes by itself: its host is dead, it is being cleared, or it is an orphan of this host that nobody adopts; −1 if there is none.</summary>
    public int FindDyingBlkdev(int backend, long nowMs)
    {
        Tracker.Sample(nowMs);
        foreach (BlkdevListing listing in Blkdevs.List())
        {
            if (listing.Body?.BackendId == backend &&
                (listing.Word.State == ClaimState.Clearing ||
                (listing.Word.State == ClaimState.Orphaned ? IsGivenUp(listing.Body.HostUuid, listing.Body.Life) : listing.Liveness == Liveness.Dead && listing.Word.State != ClaimState.Quarantined)))
                return listing.Blkdev;
        }

        return -1;
    }

    /// <summary>The list entry of a backend of whichever host. Throws if there is none.</summary>
    public BackendListing FindBackend(int backend) =>
        Backends.List().FirstOrDefault(l => l.Backend == backend)
            ?? throw new CbdException(CbdErrorKind.NotFound, $"backend {backend} does not exist on {_name}: see backend-list --all");

    /// <summary>
    /// Frees the entry of a backend that nobody serves: a quarantined one that an operator vouches for, or a record that he
    /// gives up. Throws, with the remedy, if that may not be.
    /// </summary>
    /// <param name="backend">Its id; not one of this host.</param>
    /// <param name="force">Also while blkdevs wait for it: they fail.</param>
    /// <param name="fenced">The machine of its host is off or cut off.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public void ClearBackend(int backend, bool force, bool fenced, long nowMs)
    {
        Tracker.Sample(nowMs);
        BackendListing listing = FindBackend(backend);
        if (listing.Liveness == Liveness.Alive)
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by host {listing.Word.Host}, which is alive: stop it there with backend-stop");
        if (listing.Word.State == ClaimState.Quarantined)
        {
            if (!fenced)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is quarantined: nothing proves that its host is dead; if that machine is off or cut off, clear it with --fenced");
            Clearing.ReleaseBackend(backend);
            return;
        }

        if (listing.Word.State != ClaimState.Orphaned)
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} belongs to host {listing.Word.Host}, which is {LivenessText.Of(listing.Liveness)}: clear that with host-clear first");
        if (listing.Blkdevs.Count > 0 && !force)
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} has waiting blkdevs ({string.Join(", ", listing.Blkdevs)}): bring it back with backend-start -b {backend}, stop them with dev-stop, or clear it with --force, which fails them");
        ClaimOperations<TMemory, TPolicy>.TrySwap(Memory, Geometry.BackendOffset(backend), listing.Word, listing.Word.Freed());
    }

    private bool IsGivenUp(Guid hostUuid, ulong life) => KeepsLife is { } keeps && hostUuid == Claim.HostUuid && !keeps(life);

    private void GiveUpOrphans()
    {
        if (KeepsLife is null)
            return;
        foreach ((int blkdev, ClaimWord word, ulong life) in Blkdevs.ListOwnOrphans())
        {
            if (IsGivenUp(Claim.HostUuid, life) && Clearing.ReleaseOrphan(blkdev, word))
                AnnounceChange();
        }
    }

    private bool TakeNews()
    {
        bool any = false;
        for (int host = 0; host < _seenChanges.Length; host++)
        {
            ulong changes = Memory.ReadAcquire(Geometry.HostOffset(host) + HostEntry.ChangeCounterOffset);
            any |= changes != _seenChanges[host];
            _seenChanges[host] = changes;
        }

        return any;
    }

    private void LookForOffers()
    {
        for (int channel = 0; channel < Geometry.ChannelCount; channel++)
        {
            ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(Memory, Geometry.ChannelOffset(channel));
            if (word.State is not (ClaimState.Offered or ClaimState.Quarantined) ||
                !BlkdevCtrlLine.TryLoadLatest(Memory, Geometry, channel, word.Epoch, out BlkdevCtrlLine offer) ||
                (word.State == ClaimState.Offered && offer.Epoch != word.Epoch) ||
                _backends.Find(b => b.Claim is not null && b.Backend == offer.Backend && b.Epoch == offer.Session) is not { } backend ||
                (word.State == ClaimState.Quarantined && HandlerCtrlLine.IsDrained(Memory, Geometry, channel, word.Epoch, offer.Session)))
                continue;
            backend.Offer(channel);
        }
    }
}
