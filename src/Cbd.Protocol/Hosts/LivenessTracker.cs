using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>
/// Watches all host entries of a region and judges who is alive (the rules: same boot id and same file: the lock
/// decides at once; else a heartbeat that stood still for one dead-time means dead only if the host uuid is our own,
/// and unknown otherwise). Standing still is measured on the observer's clock, and only over sample gaps of at most
/// two beats: a machine that was suspended accuses nobody. One thread at a time.
/// </summary>
internal sealed class LivenessTracker<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly HostIdentity _self;
    private readonly IHostLocks _locks;
    private readonly Entry[] _entries;

    public LivenessTracker(TMemory memory, RegionGeometry geometry, HostIdentity self, IHostLocks locks)
    {
        _memory = memory;
        _geometry = geometry;
        _self = self;
        _locks = locks;
        _entries = new Entry[geometry.HostCount];
        for (int host = 0; host < _entries.Length; host++)
            _entries[host] = new Entry { Reader = new BodyReader<TMemory>(BodyPlace.OfHost(geometry, host)) };
    }

    /// <summary>Dead-time of this observer, ms.</summary>
    public int DeadMs => _self.DeadMs;

    /// <summary>Beat of this observer, ms.</summary>
    public int BeatMs => _self.BeatMs;

    /// <summary>The entry that this host holds itself (its lock cannot be asked for); −1 for none.</summary>
    public int OwnHost { get; set; } = -1;

    /// <summary>
    /// This host has stopped storing into the region, and is about to leave: its own claim counts as dead from now on.
    /// </summary>
    public bool OwnHostHasStopped { get; set; }

    /// <summary>Looks at every host once. Call it every beat (own one), or before a decision that cannot wait.</summary>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public void Sample(long nowMs)
    {
        for (int host = 0; host < _entries.Length; host++)
            Sample(host, nowMs);
    }

    /// <summary>The judgement of the last sample.</summary>
    public HostSighting Get(int host)
    {
        Entry entry = _entries[host];
        return new HostSighting(host, entry.Word, entry.Body, entry.Liveness, entry.Settled);
    }

    /// <summary>
    /// The judgement on one claim of a host entry. A claim that is over was left or cleared with proof, so its holder
    /// is dead (or has stopped storing, which is the same here).
    /// </summary>
    public Liveness Of(int host, ulong hostEpoch)
    {
        if ((uint)host >= (uint)_entries.Length)
            return Liveness.Unknown;
        ClaimWord word = _entries[host].Word;
        if (word.Epoch > hostEpoch || (word.State == ClaimState.Free && word.Epoch == hostEpoch))
            return Liveness.Dead;
        return word.Epoch == hostEpoch ? _entries[host].Liveness : Liveness.Unknown;
    }

    /// <summary>One claim of a host entry stood still for its dead-time, and nothing proves that it is over.</summary>
    public bool IsSilent(int host, ulong hostEpoch) =>
        Of(host, hostEpoch) == Liveness.Unknown && (uint)host < (uint)_entries.Length && _entries[host].Settled && _entries[host].Word.Epoch == hostEpoch;

    /// <summary>All entries that are not free.</summary>
    public IReadOnlyList<HostSighting> List()
    {
        var found = new List<HostSighting>();
        for (int host = 0; host < _entries.Length; host++)
        {
            if (_entries[host].Word.State != ClaimState.Free)
                found.Add(Get(host));
        }

        return found;
    }

    /// <summary>Looks at one host once, and returns the judgement.</summary>
    public HostSighting Sample(int host, long nowMs)
    {
        Entry entry = _entries[host];
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.HostOffset(host));
        if (word != entry.Word)
        {
            // Being cleared or quarantined is no sign of life: what was measured of this claim goes on counting.
            bool sameClaim = word.Epoch == entry.Word.Epoch && word.State is ClaimState.Clearing or ClaimState.Quarantined &&
                entry.Word.State is not (ClaimState.Free or ClaimState.Claiming);
            if (!sameClaim)
            {
                entry.Body = null;
                entry.StillMs = 0;
                entry.Moved = false;
                entry.SampledMs = nowMs;
            }

            entry.Word = word;
        }

        ulong before = entry.Body?.Heartbeat ?? 0;
        bool had = entry.Body is not null;
        if (HasBody(word.State))
            ReadBody(entry);
        long gapMs = nowMs - entry.SampledMs;
        entry.SampledMs = nowMs;
        if (entry.Body is not null && had && entry.Body.Heartbeat != before)
        {
            entry.StillMs = 0;
            entry.Moved = true;
        }
        else if (gapMs >= 0 && gapMs <= 2L * Math.Max(_self.BeatMs, entry.Body?.BeatMs ?? 0))
        {
            entry.StillMs += gapMs;
        }

        Judge(host, entry);
        return Get(host);
    }

    private static bool HasBody(ClaimState state) => state is ClaimState.Registering or ClaimState.Active
        or ClaimState.Closing or ClaimState.Clearing or ClaimState.Quarantined;

    private void ReadBody(Entry entry)
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        if (entry.Reader.TryRead(_memory, entry.Word.Epoch, frame, out int length) &&
            HostBody.TryDecode(frame.Slice(BodyFrame.PayloadOffset, length), out HostBody body, out _))
            entry.Body = body;
    }

    private void Judge(int host, Entry entry)
    {
        (entry.Liveness, entry.Settled) = (Liveness.Unknown, false);
        ClaimState state = entry.Word.State;
        if (state == ClaimState.Free)
        {
            (entry.Liveness, entry.Settled) = (Liveness.Dead, true);
            return;
        }

        if (host == OwnHost)
        {
            (entry.Liveness, entry.Settled) = (OwnHostHasStopped ? Liveness.Dead : Liveness.Alive, true);
            return;
        }

        HostBody? body = entry.Body;
        bool still = entry.StillMs >= (body?.DeadMs ?? _self.DeadMs);
        if (body is not null && body.BootId == _self.BootId && body.Device == _self.Device && body.Inode == _self.Inode)
        {
            bool held = _locks.IsHeld(host, body.Device, body.Inode);
            // The lock is taken before the claim: a free lock condemns this claim only if it is still the same one.
            bool same = ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.HostOffset(host)) == entry.Word;
            if (same)
                (entry.Liveness, entry.Settled) = (held ? Liveness.Alive : Liveness.Dead, true);
            return;
        }

        if (!still)
        {
            entry.Liveness = entry.Moved ? Liveness.Alive : Liveness.Unknown;
            entry.Settled = entry.Moved;
            return;
        }

        // A claim that is not active owns nothing: when it stands still it is over, proof or not, because its next
        // compare-and-swap fails.
        bool proven = state is ClaimState.Claiming or ClaimState.Registering ||
            (body is not null && body.BootId != _self.BootId && body.HostUuid == _self.HostUuid);
        (entry.Liveness, entry.Settled) = (proven ? Liveness.Dead : Liveness.Unknown, true);
    }

    private sealed class Entry
    {
        public ClaimWord Word;
        public BodyReader<TMemory> Reader;
        public HostBody? Body;
        public long SampledMs;
        public long StillMs;
        public bool Moved;
        public Liveness Liveness = Liveness.Dead;
        public bool Settled = true;
    }
}
