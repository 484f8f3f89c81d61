using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>
/// This host's claim of a host entry: heartbeat, change counter, leaving. <see cref="Beat"/> and <see cref="Leave"/>
/// are one thread's (the housekeeping's); the others may be called from any thread.
/// </summary>
internal sealed class HostClaim<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly long _offset;
    private readonly HostIdentity _identity;
    private readonly IHostLocks _locks;
    private BodyWriter<TMemory> _writer;
    private ulong _heartbeat;
    private ulong _changes;
    private ClaimWord _word;
    private bool _unlocked;

    internal HostClaim(TMemory memory, RegionGeometry geometry, int host, ClaimWord claimed, HostIdentity identity, IHostLocks locks)
    {
        _memory = memory;
        Geometry = geometry;
        Host = host;
        _offset = geometry.HostOffset(host);
        _word = claimed;
        _identity = identity;
        _locks = locks;
        _writer = new BodyWriter<TMemory>(BodyPlace.OfHost(geometry, host), claimed.Epoch, keepsNewest: TPolicy.KeepNewestBody);
        _changes = memory.ReadAcquire(_offset + HostEntry.ChangeCounterOffset);
    }

    public RegionGeometry Geometry { get; }

    /// <summary>Id of the host entry.</summary>
    public int Host { get; }

    /// <summary>Epoch of this claim; recorded in the bodies of this host's backends and blkdevs.</summary>
    public ulong Epoch => _word.Epoch;

    /// <summary>Name as published.</summary>
    public string Name => _identity.Name;

    /// <summary>As kept in the state directory: the same for all lives of this host.</summary>
    public Guid HostUuid => _identity.HostUuid;

    /// <summary>
    /// Whether the entry is still this claim, and active. When it is not, somebody cleared this host: nothing of it may
    /// be stored to any more.
    /// </summary>
    public bool IsMine() => ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) == _word.With(ClaimState.Active);

    /// <summary>Publishes a heartbeat. False if the entry is not ours any more: fence yourself, then register anew.</summary>
    public bool Beat()
    {
        if (ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) != _word)
            return false;
        Publish();
        return ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset) == _word;
    }

    /// <summary>
    /// Tells the other hosts to look at this host's channels and entries. What was stored before is seen by who sees
    /// the counter move. Any thread.
    /// </summary>
    public void AnnounceChange() =>
        // Two threads may store out of order; every value is a change to whoever compares with the last one it saw.
        _memory.WriteRelease(_offset + HostEntry.ChangeCounterOffset, Interlocked.Increment(ref _changes));

    /// <summary>
    /// Leaves: the entry goes to CLOSING, what this host still holds is cleared, the entry is freed and then the lock.
    /// Stop beating, and everything that stores into the region, first. Call it again while it answers Again (a handler
    /// of another host still drains); a host that does not wait simply ends its process, and is cleared by others.
    /// </summary>
    public StepResult Leave(Clearing<TMemory, TPolicy> clearing, long nowMs)
    {
        if (_unlocked)
            return StepResult.Done;
        clearing.Tracker.OwnHostHasStopped = true;
        if (_word.State != ClaimState.Closing)
        {
            Swap(_word.With(ClaimState.Closing));
            _word = _word.With(ClaimState.Closing);
        }

        ClaimWord now = ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset);
        // Another epoch: others have cleared this claim. Quarantined by others: nobody knows better than this host that it
        // has stopped.
        if (now.Epoch == _word.Epoch && now.State is ClaimState.Closing or ClaimState.Clearing or ClaimState.Quarantined &&
            clearing.Step(Host, ClearAuthority.Owner, nowMs) == ClearResult.Again)
            return StepResult.Again;
        Unlock();
        return StepResult.Done;
    }

    /// <summary>
    /// Gives the lock back, whatever became of the entry: from now on others see this claim as dead. Everything that
    /// stores into the region under it must have stopped.
    /// </summary>
    public void GiveUp() => Unlock();

    internal ClaimWord Word => _word;

    internal void Publish()
    {
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        frame.Clear();
        _identity.ToBody(++_heartbeat, _offset).Encode(frame[BodyFrame.PayloadOffset..]);
        _writer.Publish(_memory, frame, HostBody.EncodedSizeBytes);
    }

    /// <summary>Goes to the next state of the claim; false if it is not ours any more.</summary>
    internal bool TryAdvance(ClaimState state)
    {
        if (!Swap(_word.With(state)))
            return false;
        _word = _word.With(state);
        return true;
    }

    /// <summary>Gives the entry up while it owns nothing.</summary>
    internal void Withdraw()
    {
        Swap(_word.Freed());
        Unlock();
    }

    private bool Swap(ClaimWord to) => ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _offset, _word, to);

    private void Unlock()
    {
        if (_unlocked)
            return;
        _unlocked = true;
        _locks.Unlock(Host);
    }
}
