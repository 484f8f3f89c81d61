using System.Diagnostics;
using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Host.Sessions;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Devices;

/// <summary>
/// One device of this host: its claim, its queues, and the export that serves it. Driven by management threads; while
/// the export serves, its threads alone drive the queues.
/// </summary>
internal sealed class DeviceService
{
    private const int AttachTimeoutMs = 10_000;
    private const int CloseTimeoutMs = 10_000;
    private const int PollIntervalMs = 1;

    /// <summary>
    /// Large requests go in pieces of this size: while one is sent to the client the next are on their way, and what is
    /// copied from one step to the next is still in the caches of its core.
    /// </summary>
    private const int PieceBytes = 128 << 10;

    private readonly BlkdevClaim<MappedMemory, SafePolicy> _claim;
    private readonly Queue<MappedMemory, SafePolicy>[] _queues;
    private readonly BlkdevState _state;
    private readonly BackendWatch<MappedMemory, SafePolicy> _watch;
    private readonly BlkdevDevice _device;
    private readonly IExport _export;
    private readonly PollMode _mode;
    private readonly string _identity;
    private readonly ILogger _logger;
    private readonly MappedMemory _memory;
    private readonly BackendLoss _loss;
    private readonly TransportCondition _condition;
    private string _reported = "running";
    private volatile bool _isBackendSilent;
    private volatile string _note = "";
    private long _shownBytes;
    private int _isShowing;
    private volatile bool _isAskedAgain;

    public DeviceService(
        MappedMemory memory,
        RegionGeometry geometry,
        BlkdevClaim<MappedMemory, SafePolicy> claim,
        IReadOnlyList<(int Channel, ClaimWord Word)> channels,
        string identity,
        IExport export,
        PollMode mode,
        LossPolicy lossPolicy,
        Action announceOffer,
        TransportCondition condition,
        ILogger logger)
    {
        _claim = claim;
        _export = export;
        _mode = mode;
        _identity = identity;
        _logger = logger;
        _memory = memory;
        _condition = condition;
        _loss = new BackendLoss(lossPolicy);
        BlockDeviceInfo info = claim.Session.Info with { ReadOnly = claim.Body.ReadOnly };
        _state = new BlkdevState(claim.Blkdev, claim.Epoch, claim.Body.BackendId, claim.Session with { Info = info }, channels.Count);
        _state.QueuesMayGoOn = WakeQueues;
        _watch = new BackendWatch<MappedMemory, SafePolicy>(memory, geometry, claim.Body.BackendId);
        _queues = new Queue<MappedMemory, SafePolicy>[channels.Count];
        for (int i = 0; i < _queues.Length; i++)
            _queues[i] = new Queue<MappedMemory, SafePolicy>(memory, geometry, channels[i].Channel, channels[i].Word, _state, i, new QueueOptions { PieceBytes = PieceBytes }, announceOffer);
        _device = new BlkdevDevice(_state, memory, _queues, condition);
    }

    public int Device => _claim.Blkdev;

    public int Backend => _claim.Body.BackendId;

    /// <summary>Id of the host entry under which it was started.</summary>
    public int Host => _claim.Body.HostId;

    public string Name => _export.Uri;

    public string Node => _export.Node;

    /// <summary>Who uses it, in words for an error; null if nobody does.</summary>
    public string? DescribeUse() => _export.DescribeUse();

    /// <summary>What users may not expect, in one line: why the export has not the device's size. Empty if it has.</summary>
    public string Note => _note;

    /// <summary>
    /// The device has a size that the users of the export were not told of, or could not be told of before the backend
    /// said it again. False while it is not served.
    /// </summary>
    public bool HasNewSize => Volatile.Read(ref _shownBytes) is > 0 and var shown && (shown != Info.SizeBytes || _isAskedAgain);

    /// <summary>False if <see cref="ShowSize"/> is about to be called already.</summary>
    public bool TryBeginShowing() => Interlocked.Exchange(ref _isShowing, 1) == 0;

    public void EndShowing() => Volatile.Write(ref _isShowing, 0);

    /// <summary>
    /// Tells the users of the export which size the device has now. Where that cannot be done they keep the old one, and
    /// <see cref="Note"/> says why. One thread at a time, not while the device starts or stops.
    /// </summary>
    public void ShowSize()
    {
        if (!HasNewSize)
            return;
        _isAskedAgain = false;
        long size = Info.SizeBytes;
        try
        {
            _export.Resize();
            _note = "";
            _logger.LogInformation("device {Device}: size {Before} -> {Size} bytes", Device, _shownBytes, size);
        }
        catch (CbdException e)
        {
            _note = e.Message;
            _logger.LogWarning("device {Device}: its users do not see that it has {Size} bytes now: {Error}", Device, size, e.Message);
        }

        Volatile.Write(ref _shownBytes, size);
    }

    public int QueueCount => _queues.Length;

    public BlockDeviceInfo Info => _state.Info;

    public string State => _state.Failure is { } failure ? $"failed: {failure}" : _state.IsFailing ? "failing" : IsLost ? "waiting" : "running";

    public LossPolicy LossPolicy => _loss.Policy;

    /// <summary>Why it is not running; empty while it is.</summary>
    public string Loss => _state.Failure ?? (_loss.Presence == BackendPresence.Stopped ? "the operator of its host stopped the backend"
        : !IsLost ? ""
        : _state.IsBackendOver ? "the last session of the backend is over, and nobody has started it again"
        : _isBackendSilent ? "the backend's host is not heard of, and not proven dead"
        : "the backend is being taken over or cleared");

    private bool IsLost => _state.IsBackendLost || _isBackendSilent;

    /// <summary>Commands in flight on a channel of this device; −1 if it is not one. A glimpse for lists.</summary>
    public int OutstandingOn(int channel)
    {
        foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
        {
            if (queue.Channel == channel)
                return queue.InFlight;
        }

        return -1;
    }

    /// <summary>The last events of its queues.</summary>
    public IEnumerable<FlightRecorder> Flights => _queues.Select(q => q.Flight);

    public bool Beat() => _claim.Beat();

    /// <summary>
    /// Offers all channels and answers when every one is attached; rolls back, and throws, if one is not in time.
    /// </summary>
    public void Attach()
    {
        foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
            queue.Offer();
        if (DriveUntil(q => q.Phase == QueuePhase.Attached, AttachTimeoutMs))
            return;
        string reason = _state.Failure ?? $"backend {Backend} did not attach all of {_queues.Length} queues within {AttachTimeoutMs / 1000} s: is its host alive (host-list)?";
        GiveBack(CloseChannels(force: true));
        throw new CbdException(CbdErrorKind.TimedOut, $"device {Device} not started: {reason}");
    }

    /// <summary>Gives back the address of a device that did not start.</summary>
    public void DisposeExport() => _export.Dispose();

    /// <summary>Gives the attached queues to the export.</summary>
    public void Serve()
    {
        // Read before the export reads it: a change that comes in between is shown once more.
        long size = Info.SizeBytes;
        _export.Serve(_device, _queues.Length, _mode);
        Volatile.Write(ref _shownBytes, size);
    }

    /// <summary>
    /// Ends the export, drains the channels and gives everything back. Throws, with the channels still CLOSING, if the
    /// backend's host neither answers nor is proven dead; forced, they are quarantined then.
    /// </summary>
    public void Stop(bool force)
    {
        _export.Stop(force);
        GiveBack(CloseChannels(force));
        _export.Dispose();
    }

    private void GiveBack(bool channelsAreFree)
    {
        // This host was cleared, whether housekeeping has noticed or not (or somebody broke the claim word): handlers may
        // still drain these channels, and the entry with its writer word is given back after that, by who clears this host.
        if (Array.Exists(_queues, q => q.Phase == QueuePhase.Lost))
            return;
        if (channelsAreFree)
            _claim.End();
        else
            _claim.Quarantine();
    }

    /// <summary>Ends after this host was cleared: nothing is stored into the region any more.</summary>
    public void StopFenced()
    {
        _state.Fail("this host was cleared by another: unregister the transport and register again");
        // The export's threads drive the queues until it has stopped.
        _export.Stop(force: true);
        foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
            queue.Fence();
        _export.Dispose();
    }

    public void Fail(string reason) => _state.Fail(reason);

    /// <summary>
    /// Waits, after this host was cleared, until no thread stores into the region for this device any more: each queue is
    /// fenced by the thread that drives it. Where one does not, the export is ended first.
    /// </summary>
    public void AwaitFence(int timeoutMs)
    {
        var watch = Stopwatch.StartNew();
        while (!Array.TrueForAll(_queues, q => q.Phase is QueuePhase.Closed or QueuePhase.Lost))
        {
            if (watch.ElapsedMilliseconds > timeoutMs)
            {
                _export.Stop(force: true);
                foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
                    queue.Fence();
                return;
            }

            Thread.Sleep(PollIntervalMs);
        }
    }

    /// <summary>
    /// Looks at the backend: a new session is taken over, a lost one noted; one log line per change. Under
    /// the transport's lock.
    /// </summary>
    public void WatchBackend(LivenessTracker<MappedMemory, SafePolicy> tracker)
    {
        bool isNews = _watch.TryRefresh(out BackendSession session);
        if (isNews)
        {
            if (_watch.Body!.Identity != _identity)
                _state.Fail($"backend {Backend} is another disk now ({_watch.Body.Identity}, was {_identity}): stop the device");
            else if (session.Info.SizeBytes < Info.SizeBytes || session.Info.LogicalBlockBytes != Info.LogicalBlockBytes)
                _state.Fail($"backend {Backend} has {session.Info.SizeBytes} bytes in blocks of {session.Info.LogicalBlockBytes} now, and had {Info.SizeBytes} in blocks of {Info.LogicalBlockBytes}: it must not become smaller; stop the device");
            else
                _state.Adopt(session with { Info = session.Info with { ReadOnly = _claim.Body.ReadOnly } });
            _isAskedAgain = _note.Length > 0;
        }

        ClaimWord word = _watch.Word;
        bool served = word.State == ClaimState.Active && word.Epoch == _state.SessionEpoch;
        bool dead = word.State is ClaimState.Free or ClaimState.Orphaned || word.Epoch > _state.SessionEpoch ||
            (_watch.Body is { } body && tracker.Of(body.HostId, body.HostEpoch) == Liveness.Dead);
        _state.IsBackendOver = dead;
        _state.IsBackendLost = dead || (!served && word.State != ClaimState.Closing);
        // Not proven dead, so the queues go on asking; but users who wait should be told why.
        _isBackendSilent = _watch.Body is { } last && tracker.IsSilent(last.HostId, last.HostEpoch);
        // While this device is on it, nobody frees it but an operator who gave it up.
        if (word.State == ClaimState.Free)
            _state.Fail($"backend {Backend} was cleared: stop the device");
        BackendPresence presence = _watch.IsStopped ? BackendPresence.Stopped : IsLost ? BackendPresence.Lost : BackendPresence.Served;
        isNews |= _loss.Step(presence, MonotonicClock.Milliseconds);
        _state.IsFailing = _loss.IsFailing;
        // Queues that sleep look at once.
        if (isNews)
            WakeQueues();
        Report(word);
    }

    /// <summary>One log line per change.</summary>
    private void Report(ClaimWord word)
    {
        string state = State;
        if (state == _reported)
            return;
        _reported = state;
        if (state == "running")
            _logger.LogInformation("device {Device}: running (backend {Backend}: {Word})", Device, Backend, word);
        else
            _logger.LogWarning("device {Device}: {State} (backend {Backend}: {Word}){Why}", Device, state, Backend, word, _state.Failure is null ? $": {Loss}" : "");
        if (_state.Failure is not null)
            FlightFiles.OnFailure($"device {Device}: {state}");
    }

    /// <summary>Any thread of the device.</summary>
    private void WakeQueues()
    {
        if (_condition.IsFenced)
            return;
        foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
        {
            // What was lost or given back is somebody else's channel: its doorbell too.
            if (queue.Phase is not (QueuePhase.Closed or QueuePhase.Lost))
                Doorbells.Ring(_memory, queue.DoorbellOffset);
        }
    }

    private bool CloseChannels(bool force)
    {
        foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
            queue.BeginClose();
        if (DriveUntil(q => q.Phase is QueuePhase.Closed or QueuePhase.Lost, CloseTimeoutMs))
            return true;
        if (!force)
            throw new CbdException(CbdErrorKind.TimedOut, $"device {Device}: the host of backend {Backend} neither drains its channels nor is proven dead: try again, or stop it with --force, which quarantines them");
        foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
        {
            if (queue.Phase == QueuePhase.Closing)
                queue.Quarantine();
        }

        return false;
    }

    private bool DriveUntil(Predicate<Queue<MappedMemory, SafePolicy>> done, int timeoutMs)
    {
        var watch = Stopwatch.StartNew();
        var completions = new BlockCompletion[64];
        while (true)
        {
            foreach (Queue<MappedMemory, SafePolicy> queue in _queues)
            {
                if (_condition.IsFenced)
                    queue.Fence();
                if (!_condition.IsOverdue)
                    queue.Poll(MonotonicClock.Microseconds, completions);
            }

            if (Array.TrueForAll(_queues, done))
                return true;
            if (watch.ElapsedMilliseconds > timeoutMs || _state.Failure is not null && Array.Exists(_queues, q => q.Phase == QueuePhase.Lost))
                return false;
            Thread.Sleep(PollIntervalMs);
        }
    }
}
