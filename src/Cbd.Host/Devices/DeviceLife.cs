using Cbd.Blocks;
using Cbd.Host.Sessions;
using Cbd.Memory;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Records;

namespace Cbd.Host.Devices;

/// <summary>
/// One device of this host, from its claim to the end of it: a state machine without threads, clocks and waiting. One
/// thread at a time, that of the session, except for <see cref="Status"/>. While the device serves, the export's threads
/// alone drive its queues.
/// </summary>
internal sealed partial class DeviceLife<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly HostSession<TMemory, TPolicy> _session;
    private readonly DeviceWish _wish;
    private readonly LifeCycle _life;
    private readonly BackendLoss _loss;
    private readonly List<(int Channel, ClaimWord Word)> _channels = [];
    private readonly BlockCompletion[] _completions = new BlockCompletion[64];
    private BlkdevClaim<TMemory, TPolicy>? _claim;
    private BackendWatch<TMemory, TPolicy>? _watch;
    private BlkdevState? _state;
    private Queue<TMemory, TPolicy>[] _queues = [];
    private bool _stopAsked;
    private bool _force;
    private bool _hasServed;
    private readonly long _mostMs;
    private long _limitMs;
    private long _attachMs;

    public DeviceLife(HostSession<TMemory, TPolicy> session, DeviceWish wish, long nowMs)
    {
        _session = session;
        _wish = wish;
        _life = new LifeCycle(nowMs);
        _loss = new BackendLoss(wish.Loss);
        _mostMs = wish.WaitMs is { } most ? nowMs + most : long.MaxValue;
        session.Add(this);
    }

    public IDeviceObserver? Observer { get; init; }

    public HostSession<TMemory, TPolicy> Session => _session;

    /// <summary>Where it stands. Any thread.</summary>
    public LifeStatus Status => _life.Status;

    public DeviceStage Stage { get; private set; }

    public bool IsOver => Stage == DeviceStage.Over;

    /// <summary>Id of the blkdev; −1 before it is claimed. One that adopts has its id all the time, also if its claim is gone.</summary>
    public int Blkdev => _claim?.Blkdev ?? (_wish.Adopts ? _wish.Record!.Body.BlkdevId : -1);

    /// <summary>It has an entry of the region. False also of a device whose claim was gone when it was to be adopted.</summary>
    public bool HasClaim => _claim is not null;

    /// <summary>What survives this process; null: nothing does.</summary>
    public DeviceRecord? Record => _wish.Record;

    /// <summary>Epoch of its claim.</summary>
    public ulong Epoch => _claim?.Epoch ?? 0;

    public int Backend => _wish.Backend;

    /// <summary>Identity of the disk that it is on.</summary>
    public string Identity { get; private set; } = "";

    public int QueueCount => _wish.Queues;

    public LossPolicy LossPolicy => _loss.Policy;

    /// <summary>What its queues share; null before it is active.</summary>
    public BlkdevState? State => _state;

    public Queue<TMemory, TPolicy>[] Queues => _queues;

    public IReadOnlyList<(int Channel, ClaimWord Word)> Channels => _channels;

    /// <summary>
    /// Whether a blkdev of a dead host is still on the backend, and about to be cleared: by housekeeping, here or elsewhere, as soon
    /// as its channels are drained. What is in the way for longer refuses the claim.
    /// </summary>
    public bool HasToWait(long nowMs)
    {
        _session.CheckUsable();
        if (_wish.Adopts)
            return HasToWaitForOwnDead(nowMs);
        if (_limitMs == 0)
            _limitMs = Math.Min(nowMs + _session.Times.ClearingMs, _mostMs);
        int dying = _session.FindDyingBlkdev(_wish.Backend, nowMs);
        if (dying < 0 || nowMs >= _limitMs)
            return false;
        _life.Go(LifeState.Waiting, $"blkdev {dying} of a dead host on backend {_wish.Backend} is being cleared", nowMs);
        return true;
    }

    /// <summary>Claims the entry, the backend's writer word and the channels. Throws, and holds nothing then.</summary>
    public void Claim(long nowMs)
    {
        Require(DeviceStage.New);
        if (_wish.Adopts)
        {
            ClaimAgain(nowMs);
            return;
        }

        try
        {
            _session.CheckUsable();
            _life.Go(LifeState.Starting, "it claims its entry and channels", nowMs);
            _claim = _session.Blkdevs.Claim(_wish.Backend, _wish.ReadOnly, _session.UsesBlkdev, _wish.Record?.Body.Life ?? 0);
        }
        catch (CbdException e)
        {
            End(e.Message, nowMs);
            throw;
        }

        try
        {
            Observer?.EntryClaimed();
            RecordClaim();
            ClaimChannels();
            Stage = DeviceStage.Claimed;
        }
        catch (CbdException e)
        {
            GiveBackClaims(e.Message, nowMs);
            throw;
        }
    }

    /// <summary>Becomes active under a name (its node or URI) and offers the channels. Throws, and holds nothing then.</summary>
    public void Activate(string name, long nowMs)
    {
        Require(DeviceStage.Claimed);
        if (_wish.Adopts)
        {
            GoOn(name, nowMs);
            return;
        }

        try
        {
            _session.CheckUsable();
            if (_stopAsked)
                throw new CbdException(CbdErrorKind.Failed, $"device {Blkdev} was stopped before it had started");
            _claim!.Activate([.. _channels.Select(c => c.Channel)], name);
            Observer?.Activated();
            Identity = _session.Backends.ReadRecord(_wish.Backend).Identity;
            if (_wish.Identity is { } wanted && wanted != Identity && DiskIdentity.Compare(new DiskIdentity(wanted), new DiskIdentity(Identity)) is not DiskComparison.Same and var comparison)
            {
                throw new CbdException(CbdErrorKind.Busy, comparison == DiskComparison.Different
                    ? $"backend {_wish.Backend} is another disk ({Identity}, not {wanted}): see backend-list --all"
                    : $"nothing tells whether backend {_wish.Backend} is the disk that is wanted ({Identity}, was {wanted}): see backend-list --all; if it is, dev-stop, then dev-start -b {_wish.Backend}");
            }

            MakeQueues();
        }
        catch (Exception e)
        {
            GiveBackClaims(e.Message, nowMs);
            throw;
        }

        Stage = DeviceStage.Attaching;
        _attachMs = Math.Max(0, Math.Min(_session.Times.AttachMs, _mostMs - nowMs));
        _limitMs = nowMs + _attachMs;
        _life.Go(LifeState.Starting, $"it waits for the host of backend {_wish.Backend} to serve its channels", nowMs);
        foreach (Queue<TMemory, TPolicy> queue in _queues)
            queue.Offer();
    }

    /// <summary>Gives back a claim whose name could not be had.</summary>
    public void Cancel(string why, long nowMs)
    {
        if (Stage == DeviceStage.Claimed)
            GiveBackClaims(why, nowMs);
        else if (Stage == DeviceStage.New)
            End(why, nowMs);
    }

    /// <summary>
    /// Drives the queues while no export does: until all are attached, or everything is given back. Not while the host is
    /// overdue with its heartbeat.
    /// </summary>
    /// <param name="nowMicroseconds">This host's monotonic clock.</param>
    public void Step(long nowMicroseconds)
    {
        long nowMs = nowMicroseconds / 1000;
        if (Stage == DeviceStage.Attaching)
        {
            Poll(nowMicroseconds);
            if (_stopAsked)
                TakeBack($"device {Blkdev} was stopped before it had started", nowMs);
            else if (_state!.Failure is { } failure)
                TakeBack(failure, nowMs);
            else if (Array.TrueForAll(_queues, q => q.Phase == QueuePhase.Attached))
                Stage = DeviceStage.Attached;
            else if (nowMs > _limitMs)
                TakeBack($"backend {Backend} did not attach all of {_queues.Length} queues within {(_attachMs + 500) / 1000} s: is its host alive (host-list)?", nowMs);
        }
        else if (Stage == DeviceStage.Closing)
        {
            Poll(nowMicroseconds);
            FinishClose(nowMs);
        }
    }

    /// <summary>It stops, whoever uses it.</summary>
    public bool IsForced => _force;

    /// <summary>Why it did not start; empty if it did, or may still.</summary>
    public string StartTrouble { get; private set; } = "";

    /// <summary>The export is about to serve: from now on its threads drive the queues.</summary>
    public void BeginServing(long nowMs)
    {
        if (_stopAsked)
            throw new CbdException(CbdErrorKind.Failed, $"device {Blkdev} was stopped before it had started");
        Require(DeviceStage.Attached);
        _wish.Record?.Change(body => body with { State = DeviceRecordState.Serving });
        Stage = DeviceStage.Serving;
        _hasServed = true;
        ShowStatus(nowMs);
    }

    /// <summary>
    /// Accepts a stop. A device that serves is <see cref="DeviceStage.EndingExport"/> then: the driver ends the export, and
    /// calls <see cref="EndServing"/>.
    /// </summary>
    /// <param name="force">Channels that do not drain in time are quarantined.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public void BeginStop(bool force, long nowMs)
    {
        _force |= force;
        _stopAsked = true;
        if (Stage == DeviceStage.Serving)
        {
            _life.Go(LifeState.Stopping, "its users are disconnected", nowMs);
            Stage = DeviceStage.EndingExport;
        }
        else if (Stage == DeviceStage.Attached)
        {
            TakeBack($"device {Blkdev} was stopped before it had started", nowMs);
        }
        else if (Stage == DeviceStage.New)
        {
            End("it was stopped before it had started", nowMs);
        }
    }

    /// <summary>The export is in use after all, and goes on; but not if somebody wants it stopped by force meanwhile.</summary>
    public void RefuseStop(long nowMs)
    {
        Require(DeviceStage.EndingExport);
        if (_force)
            return;
        _stopAsked = false;
        Stage = DeviceStage.Serving;
        ShowStatus(nowMs);
    }

    /// <summary>The export has ended: its threads do not touch the queues any more.</summary>
    public void EndServing(long nowMs)
    {
        Require(DeviceStage.EndingExport);
        BeginClose(nowMs);
    }

    /// <summary>Publishes the body again, with every heartbeat.</summary>
    public void Beat()
    {
        if (!IsOver)
            _claim?.Beat();
    }

    /// <summary>From now on every request is answered with EIO.</summary>
    public void Fail(string reason, long nowMs)
    {
        _state?.Fail(reason);
        ShowStatus(nowMs);
    }

    /// <summary>
    /// After this host was cleared: nothing is stored into the region for this device any more. The export's threads fence
    /// the queues that they drive.
    /// </summary>
    public bool IsQuiet => Stage is DeviceStage.New or DeviceStage.Claimed or DeviceStage.Over ||
        Array.TrueForAll(_queues, q => q.Phase is QueuePhase.Closed or QueuePhase.Lost);

    /// <summary>Fences all queues, when no other thread drives them any more.</summary>
    public void Fence()
    {
        foreach (Queue<TMemory, TPolicy> queue in _queues)
            queue.Fence();
    }

    private void MakeQueues()
    {
        BackendSession disk = _claim!.Session;
        BackendSession session = disk with { Info = disk.Info with { ReadOnly = _claim.Body.ReadOnly } };
        _wish.Record?.Change(body => body with
        {
            DurabilityId = session.DurabilityId,
            Session = session.Epoch,
            Info = session.Info,
            WasBuffered = session.IsBuffered,
            Identity = Identity,
        });
        MakeQueues(new BlkdevState(_claim.Blkdev, _claim.Epoch, _wish.Backend, session, _channels.Count, _wish.Record)
        {
            QueuesMayGoOn = WakeQueues,
            JudgesBeforeStore = TPolicy.JudgeBeforeStore,
        });
    }

    private void MakeQueues(BlkdevState state)
    {
        _state = state;
        _watch = new BackendWatch<TMemory, TPolicy>(_session.Memory, _session.Geometry, _wish.Backend);
        var queues = new Queue<TMemory, TPolicy>[state.QueueCount];
        for (int i = 0; i < queues.Length; i++)
        {
            (int channel, ClaimWord word) = _isHollow ? (0, default) : _channels[i];
            queues[i] = new Queue<TMemory, TPolicy>(_session.Memory, _session.Geometry, channel, word, state, i, _wish.QueueOptions, _session.AnnounceChange, _isHollow);
        }

        _queues = queues;
    }

    private void ClaimChannels()
    {
        while (_channels.Count < _wish.Queues)
        {
            if (!ChannelClaims<TMemory, TPolicy>.TryClaim(_session.Memory, _session.Geometry, _session.Claim.Host, out int channel, out ClaimWord word))
                throw new CbdException(CbdErrorKind.Exhausted, $"no free channel for queue {_channels.Count + 1} of {_wish.Queues}: all {_session.Geometry.ChannelCount} are taken: use fewer --queues, stop a device, or format with more --channels");
            Observer?.ChannelClaimed(channel, word);
            _channels.Add((channel, word));
        }
    }

    /// <summary>Before the first command under the claim.</summary>
    private void RecordClaim() => _wish.Record?.Change(body => body with
    {
        BlkdevId = _claim!.Blkdev,
        BlkdevEpoch = _claim.Epoch,
        HostId = _session.Claim.Host,
        HostEpoch = _session.Claim.Epoch,
    });

    private void Poll(long nowMicroseconds)
    {
        foreach (Queue<TMemory, TPolicy> queue in _queues)
        {
            if (_session.Condition.IsFenced)
                queue.Fence();
            queue.Poll(nowMicroseconds, _completions);
        }
    }

    /// <summary>A start that came to nothing: the channels drain, and all is given back.</summary>
    private void TakeBack(string why, long nowMs)
    {
        StartTrouble = why;
        BeginClose(nowMs);
    }

    private void BeginClose(long nowMs)
    {
        // A successor does not take up what is being given back.
        _wish.Record?.Change(body => body with { State = DeviceRecordState.Stopping });
        Stage = DeviceStage.Closing;
        _limitMs = nowMs + _session.Times.CloseMs;
        _life.Go(LifeState.Stopping, "its channels drain", nowMs);
        foreach (Queue<TMemory, TPolicy> queue in _queues)
        {
            if (_session.Condition.IsFenced)
                queue.Fence();
            else
                queue.BeginClose();
        }
    }

    private void FinishClose(long nowMs)
    {
        if (Array.TrueForAll(_queues, q => q.Phase is QueuePhase.Closed or QueuePhase.Lost))
        {
            // This host was cleared, whether housekeeping has noticed or not (or somebody broke the claim word): handlers may
            // still drain these channels, and who clears this host gives the entry and its writer word back after that.
            bool isLost = !_isHollow && Array.Exists(_queues, q => q.Phase == QueuePhase.Lost);
            End(StartTrouble, nowMs);
            if (!isLost)
                _claim?.End();
            return;
        }

        if (nowMs <= _limitMs)
            return;
        if (!_force && _hasServed)
        {
            _life.Go(LifeState.Stopping, $"the host of backend {Backend} neither drains its channels nor is proven dead", nowMs);
            return;
        }

        foreach (Queue<TMemory, TPolicy> queue in _queues)
        {
            if (queue.Phase == QueuePhase.Closing)
                queue.Quarantine();
        }

        bool lost = Array.Exists(_queues, q => q.Phase == QueuePhase.Lost);
        End(StartTrouble, nowMs);
        if (!lost)
            _claim!.Quarantine();
    }

    private void GiveBackClaims(string why, long nowMs)
    {
        StartTrouble = why;
        foreach ((int channel, ClaimWord word) in _channels)
            ChannelClaims<TMemory, TPolicy>.Release(_session.Memory, _session.Geometry, channel, word);
        End(why, nowMs);
        if (!_wish.Adopts)
            _claim!.End();
        else if (_stopAsked)
            _claim?.Free();
        else
            // It is tried again.
            _claim?.Park();
    }

    private void End(string why, long nowMs)
    {
        Stage = DeviceStage.Over;
        StartTrouble = why;
        _life.Go(LifeState.Gone, why, nowMs);
        Observer?.Ended();
    }

    /// <summary>Any thread of the device.</summary>
    private void WakeQueues()
    {
        if (_session.Condition.IsFenced)
            return;
        foreach (Queue<TMemory, TPolicy> queue in _queues)
        {
            // What was lost or given back is somebody else's channel: its doorbell too.
            if (queue.Phase is not (QueuePhase.Closed or QueuePhase.Lost))
                Doorbells.Ring(_session.Memory, queue.DoorbellOffset);
        }
    }

    private void Require(DeviceStage stage)
    {
        if (Stage != stage)
            throw new InvalidOperationException($"device {Blkdev} is {Stage}, not {stage}");
    }
}
