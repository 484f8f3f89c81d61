using Cbd.Blocks;
using Cbd.Host.Sessions;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Backends;

/// <summary>How far a backend has come; <see cref="LifeState"/> is what of it users see.</summary>
internal enum BackendStage
{
    /// <summary>Its disk is not open and locked yet.</summary>
    Opening = 0,

    /// <summary>The disk is this process's; the entry is not yet.</summary>
    Claiming,

    /// <summary>The entry is claimed and active; the driver starts the handlers.</summary>
    Claimed,

    /// <summary>Handlers serve its channels.</summary>
    Serving,

    /// <summary>Handlers finish what they fetched. The driver says when nothing is at the disk, and the disk is closed.</summary>
    Draining,

    /// <summary>This host was cleared: nothing is at the disk, which stays open and locked for the next claim.</summary>
    Held,

    /// <summary>The disk does not finish: the end of this process is what others wait for.</summary>
    Abandoned,

    Over,
}

/// <summary>What a backend is to be.</summary>
/// <param name="Backend">The entry to take over; null: a new one.</param>
/// <param name="Fenced">An operator vouches for the death of the old session.</param>
/// <param name="Anew">This host had that entry, and was cleared: it is taken over, or started anew under its id if it is free.</param>
/// <param name="FlushError">The latched errno of a flush that failed under the claim that was cleared; 0 for none.</param>
/// <param name="IsConfirmed">The disk is the entry's where nothing tells; if false, only a disk that is proven to be takes the record over.</param>
/// <param name="WaitMs">It waits no longer than this for the old session to be judged; null: the usual time.</param>
internal sealed record BackendWish(int? Backend, bool Fenced = false, bool Anew = false, int FlushError = 0, bool IsConfirmed = true, int? WaitMs = null);

/// <summary>
/// One backend of this host, from its disk's lock to the end of its claim: a state machine without threads, clocks and
/// waiting. One thread at a time, that of the session, except for <see cref="Status"/>, <see cref="Claim"/> and <see cref="Served"/>.
/// </summary>
internal sealed class BackendLife<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly HostSession<TMemory, TPolicy> _session;
    private readonly BackendWish _wish;
    private readonly LifeCycle _life;
    private BackendBody? _body;

    /// <summary>The entry that the disk has already, as it was last looked for.</summary>
    private int? _found;
    private RecordSearch<TMemory, TPolicy>? _search;
    private Action<int>? _offer;
    private long _limitMs;
    private long _notBeforeMs;
    private readonly long _mostMs;

    public BackendLife(HostSession<TMemory, TPolicy> session, BackendWish wish, long nowMs)
    {
        _session = session;
        _wish = wish;
        _life = new LifeCycle(nowMs);
        _mostMs = wish.WaitMs is { } most ? nowMs + most : long.MaxValue;
        session.Add(this);
    }

    public HostSession<TMemory, TPolicy> Session => _session;

    /// <summary>Where it stands. Any thread.</summary>
    public LifeStatus Status => _life.Status;

    public BackendStage Stage { get; private set; }

    public bool IsOver => Stage is BackendStage.Over or BackendStage.Held or BackendStage.Abandoned;

    /// <summary>This host's claim; null before it is made.</summary>
    public BackendClaim<TMemory, TPolicy>? Claim { get; private set; }

    /// <summary>Id of the backend: that of the claim, or the one that is wanted; −1 if neither is known.</summary>
    public int Backend => Claim?.Backend ?? _wish.Backend ?? _found ?? -1;

    /// <summary>Epoch of the claim.</summary>
    public ulong Epoch => Claim?.Session ?? 0;

    /// <summary>It takes a record over, instead of being a new backend.</summary>
    public bool IsTakeOver => (_wish.Backend ?? _found) is not null;

    /// <summary>The session as its handlers see it; null before it serves.</summary>
    public ServedBackend? Served { get; private set; }

    /// <summary>How the same disk is offered again under another claim of this host.</summary>
    public BackendWish WishAnew => new(Backend, Anew: true, FlushError: TPolicy.KeepLatchAnew ? Served?.FlushError ?? _wish.FlushError : 0);

    /// <summary>Handlers of it may still send something to the disk.</summary>
    public bool MayTouchDisk => Stage is BackendStage.Serving or BackendStage.Draining or BackendStage.Abandoned;

    /// <summary>
    /// After this host was cleared: no handler stores into the region or sends anything to the disk.
    /// </summary>
    public bool IsQuiet => !MayTouchDisk;

    /// <summary>It waits for something before its disk is this process's own.</summary>
    public void AwaitDisk(string why, long nowMs) => _life.Go(LifeState.Waiting, why, nowMs);

    /// <summary>The disk is open, and locked. Throws if this host may not claim anything.</summary>
    /// <param name="body">The disk as it is now.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public void BeginClaim(BackendBody body, long nowMs)
    {
        Require(BackendStage.Opening);
        _session.CheckUsable();
        _body = body.FlushError == 0 ? body with { FlushError = _wish.FlushError } : body;
        if (TPolicy.TakeOverOwnRecord)
            _search = _session.Backends.SearchFor(_body);
        _limitMs = Math.Min(nowMs + _session.Times.TakeOverMs, _mostMs);
        _life.Go(LifeState.Starting, "it claims its entry", nowMs);
        Stage = BackendStage.Claiming;
    }

    /// <summary>One step of claiming the entry. True when it is claimed and active. Throws if it cannot be had; it is over then.</summary>
    public bool TryClaim(long nowMs)
    {
        Require(BackendStage.Claiming);
        try
        {
            _session.CheckUsable();
            if (nowMs < _notBeforeMs)
                return false;
            _session.Tracker.Sample(nowMs);
            FoundRecord? found = LookForRecord(nowMs);
            _found = found?.Backend;
            // One of this process that has it is ending, or is about to serve it.
            bool isOver = found is not { IsOver: false } && !(_found is { } own && _session.OwnBackends.Any(b => b != this && b.Stage != BackendStage.Over && b.Backend == own));
            if (!isOver && nowMs <= _limitMs)
                _life.Go(LifeState.Waiting, $"the disk is backend {_found}, whose session is just ending, or beginning", nowMs);
            else if ((_wish.Backend ?? _found) is not { } wanted)
                Claim = _session.Backends.Start(_body!, isServedHere: _session.UsesBackend, search: _search);
            else if (_wish.Anew && _session.IsBackendFree(wanted))
                Claim = _session.Backends.Start(_body!, wanted, search: _search);
            else if (_session.Backends.TakeOver(wanted, _body!, _wish.Fenced, IsDiskConfirmed, out BackendClaim<TMemory, TPolicy>? claim, _search) == StepResult.Done)
                Claim = claim!;
            else if (nowMs > _limitMs)
                throw TooLate(wanted);
            else
                _life.Go(LifeState.Waiting, $"the old session of backend {wanted} is not proven over yet", nowMs);
        }
        catch (CbdException e) when (e.Kind == CbdErrorKind.NotFound && _found is not null)
        {
            // The last blkdev has left it in this moment: the disk gets another entry.
            return false;
        }
        catch (RivalClaimException e) when (nowMs <= _limitMs)
        {
            // Both may have stepped back: the one with the lower host id is there first the next time.
            _notBeforeMs = nowMs + (_session.Claim.Host + 1L) * _session.Times.BeatMs;
            _life.Go(LifeState.Waiting, e.Message, nowMs);
            return false;
        }
        catch (CbdException e)
        {
            End(e.Message, nowMs);
            throw;
        }

        if (Claim is null)
            return false;
        Stage = BackendStage.Claimed;
        _life.Go(LifeState.Starting, "its handlers start", nowMs);
        return true;
    }

    /// <summary>The session for its handlers. Throws if this host was cleared meanwhile.</summary>
    /// <param name="disk">What is served.</param>
    public ServedBackend MakeServed(IBlockDevice disk)
    {
        Require(BackendStage.Claimed);
        bool readOnly = Claim!.Body.ReadOnly;
        return Served = new ServedBackend(
            Claim.Backend,
            Claim.Session,
            disk,
            Claim.Body.FlushError,
            error => Claim.StoreFlushError(error),
            (blkdev, epoch) => BlkdevRegistry<TMemory, TPolicy>.IsEntitled(_session.Memory, _session.Geometry, Claim.Backend, readOnly, blkdev, epoch));
    }

    /// <summary>The handlers are there.</summary>
    /// <param name="offer">Gets each channel that was offered to the session or has to be said to be drained, maybe several times.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public void BeginServing(Action<int> offer, long nowMs)
    {
        Require(BackendStage.Claimed);
        _session.CheckUsable();
        _offer = offer;
        Stage = BackendStage.Serving;
        _life.Go(LifeState.Running, "", nowMs);
    }

    /// <summary>A channel may have been offered to the session.</summary>
    public void Offer(int channel)
    {
        if (Stage == BackendStage.Serving)
            _offer!(channel);
    }

    /// <summary>Publishes the body again, with every heartbeat.</summary>
    public void Beat()
    {
        if (!IsOver)
            Claim?.Beat();
    }

    /// <summary>
    /// Accepts a stop: no blkdev can start on it any more, and handlers drain. Throws, with nothing changed, if blkdevs use it
    /// and it is not forced.
    /// </summary>
    /// <param name="force">Blkdevs that use it answer with EIO until it is started again.</param>
    /// <param name="leaves">This host ends: the blkdevs wait for the next session instead.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public void BeginStop(bool force, bool leaves, long nowMs)
    {
        if (Stage is BackendStage.Opening or BackendStage.Claiming)
        {
            End("it was stopped before it had started", nowMs);
            return;
        }

        if (Stage != BackendStage.Serving)
            return;
        if (!_session.Condition.IsFenced)
        {
            Claim!.BeginClose(force);
            if (force && !leaves)
                Claim.MarkStopped();
            _session.AnnounceChange();
        }

        Stage = BackendStage.Draining;
        _life.Go(LifeState.Stopping, "its handlers finish what is at the disk", nowMs);
    }

    /// <summary>Its handlers could not be made: no blkdev can start on it any more. True if nobody waits for its disk.</summary>
    public bool GiveUpStart()
    {
        if (Stage != BackendStage.Claimed || _session.Condition.IsFenced)
            return false;
        // Who uses it is looked at after nobody can start on it.
        bool isStopped = Claim!.GiveUp();
        _session.AnnounceChange();
        return isStopped || !Claim.IsUsed;
    }

    /// <summary>It is not done yet, and why.</summary>
    public void StopTakesLong(string why, long nowMs)
    {
        if (Stage == BackendStage.Draining)
            _life.Go(LifeState.Stopping, why, nowMs);
    }

    /// <summary>
    /// Nothing of the session can reach the disk or a channel any more, and the disk is closed. Also ends a claim whose
    /// handlers could not be started.
    /// </summary>
    public void EndStop(long nowMs)
    {
        if (IsOver)
            return;
        End("", nowMs);
        if (!_session.Condition.IsFenced)
            Claim?.EndClose();
    }

    /// <summary>This host was cleared. Handlers have ended with nothing at the disk; the disk stays open and locked.</summary>
    public void Hold(long nowMs)
    {
        if (IsOver)
            return;
        Stage = BackendStage.Held;
        _life.Go(LifeState.Waiting, "this host was cleared; it is offered again when the host is registered anew", nowMs);
    }

    /// <summary>The disk does not finish what it was asked: its handlers stay until this process ends.</summary>
    public void Abandon(long nowMs)
    {
        if (Stage is BackendStage.Over or BackendStage.Held)
            return;
        Stage = BackendStage.Abandoned;
        if (_life.State != LifeState.Failed)
            _life.Go(LifeState.Failed, "the disk does not finish its requests; restart the daemon when the disk answers again", nowMs);
    }

    /// <summary>The record to take over where no entry is named. Throws if it would be a second backend of one disk.</summary>
    private FoundRecord? LookForRecord(long nowMs)
    {
        FoundRecord? found = _search?.Find();
        if (_wish.Backend is { } named)
        {
            // The lock of this kernel did not keep another machine from the disk while this host had no claim; and an operator may err.
            if (found is { Comparison: DiskComparison.Same } other && other.Backend != named && !_body!.ReadOnly)
            {
                throw new CbdException(CbdErrorKind.Busy, _wish.Anew
                    ? $"the disk of backend {named} is backend {other.Backend} by now: another host has taken it up"
                    : $"'{_body.Path}' is the disk of backend {other.Backend}, not of {named}: start it without -b");
            }

            return null;
        }

        if (TPolicy.ConfirmUncertain && found is { Comparison: DiskComparison.CannotTell } undecided && (undecided.IsOver || nowMs > _limitMs))
            throw BackendRegistry<TMemory, TPolicy>.Undecided(undecided.Backend, undecided.Body, _body!);
        return found;
    }

    /// <summary>An operator named the entry; or it is the disk that this process has held open.</summary>
    private bool IsDiskConfirmed => _wish.Backend is not null && _wish.IsConfirmed;

    private CbdException TooLate(int backend)
    {
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_session.Memory, _session.Geometry.BackendOffset(backend));
        return new CbdException(CbdErrorKind.TimedOut, word.State switch
        {
            ClaimState.Claiming => $"backend {backend} is being claimed by host {word.Host}, and that does not end: see host-list, and try again when that host is cleared",
            ClaimState.Clearing => $"backend {backend} is being cleared, and that does not end: see host-list, and try again",
            _ => $"backend {backend}: its old session is neither alive nor proven dead: see host-list; if its machine is off or cut off, start with --fenced",
        })
        {
            MayPass = true,
        };
    }

    private void End(string why, long nowMs)
    {
        Stage = BackendStage.Over;
        if (_life.State == LifeState.Running)
            _life.Go(LifeState.Stopping, why, nowMs);
        _life.Go(LifeState.Gone, why, nowMs);
    }

    private void Require(BackendStage stage)
    {
        if (Stage != stage)
            throw new InvalidOperationException($"backend {Backend} is {Stage}, not {stage}");
    }
}
