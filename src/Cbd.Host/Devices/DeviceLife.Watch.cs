using Cbd.Blocks;
using Cbd.Host.Sessions;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Devices;

/// <summary>The part of a device that looks at its backend.</summary>
internal sealed partial class DeviceLife<TMemory, TPolicy>
{
    private bool _isBackendSilent;
    private int _sizeNews;

    /// <summary>
    /// One look at the backend: a new session or size is taken over, a loss noted, and requests are failed where the device
    /// was told so.
    /// </summary>
    public void Watch(long nowMs)
    {
        if (_watch is null || _state is null || IsOver || _session.Condition.IsFenced)
            return;
        bool isNews = _watch.TryRefresh(out BackendSession session);
        if (isNews)
            TakeSession(session);
        ClaimWord word = _watch.Word;
        bool served = word.State == ClaimState.Active && word.Epoch == _state.SessionEpoch;
        bool dead = word.State is ClaimState.Free or ClaimState.Orphaned || word.Epoch > _state.SessionEpoch ||
            (_watch.Body is { } body && _session.Tracker.Of(body.HostId, body.HostEpoch) == Liveness.Dead);
        _state.IsBackendOver = dead;
        _state.IsBackendLost = dead || (!served && word.State != ClaimState.Closing);
        // Not proven dead, so the queues go on asking; but users who wait should be told why.
        _isBackendSilent = _watch.Body is { } last && _session.Tracker.IsSilent(last.HostId, last.HostEpoch);
        // While this device is on it, nobody frees it but an operator who gave it up.
        if (word.State == ClaimState.Free)
            _state.Fail($"backend {Backend} was cleared: stop the device");
        BackendPresence presence = _watch.IsStopped ? BackendPresence.Stopped : IsLost ? BackendPresence.Lost : BackendPresence.Served;
        isNews |= _loss.Step(presence, nowMs);
        _state.IsFailing = _loss.IsFailing;
        // Queues that sleep look at once.
        if (isNews)
            WakeQueues();
        ShowStatus(nowMs);
    }

    /// <summary>The claim word of the backend at the last look.</summary>
    public ClaimWord BackendWord => _watch?.Word ?? default;

    /// <summary>How often the backend has said its size. Counted before <see cref="State"/> has that size. Any thread.</summary>
    public int SizeNews => Volatile.Read(ref _sizeNews);

    /// <summary>Requests are answered with EIO until the backend is back.</summary>
    public bool IsFailing => _state?.IsFailing ?? false;

    /// <summary>Why it is not running, as far as that is the backend's doing; empty while it runs.</summary>
    public string Loss => _state?.Failure ?? (_loss.Presence == BackendPresence.Stopped ? "the operator of its host stopped the backend"
        : !IsLost ? ""
        : _state!.IsBackendOver ? "the last session of the backend is over, and nobody has started it again"
        : _isBackendSilent ? "the backend's host is not heard of, and not proven dead"
        : "the backend is being taken over or cleared");

    private bool IsLost => _state is { IsBackendLost: true } || _isBackendSilent;

    private void TakeSession(BackendSession session)
    {
        BlkdevState state = _state!;
        Volatile.Write(ref _sizeNews, _sizeNews + 1);
        string identity = _watch!.Body!.Identity;
        bool beginsAnew = DiskIdentity.BeginsAnew(Identity, identity);
        if ((beginsAnew ? TPolicy.RefuseMemoryAnew : TPolicy.RefuseOtherDisk) && IsOtherDisk(identity))
        {
            state.Fail(beginsAnew
                ? $"the disk of backend {Backend} was in memory and began anew, its data is gone ({identity}, was {Identity}): dev-stop, then dev-start"
                : $"backend {Backend} is another disk now ({identity}, was {Identity}): stop the device");
        }
        else if (session.Info.SizeBytes < state.Info.SizeBytes || session.Info.LogicalBlockBytes != state.Info.LogicalBlockBytes)
            state.Fail($"backend {Backend} has {session.Info.SizeBytes} bytes in blocks of {session.Info.LogicalBlockBytes} now, and had {state.Info.SizeBytes} in blocks of {state.Info.LogicalBlockBytes}: it must not become smaller; stop the device");
        else
            state.Adopt(session with { Info = session.Info with { ReadOnly = state.Info.ReadOnly } });
    }

    /// <summary>Where nothing tells, an operator has told the backend's host that it is the same disk.</summary>
    private bool IsOtherDisk(string identity) =>
        identity != Identity && DiskIdentity.Compare(new DiskIdentity(Identity), new DiskIdentity(identity)) == DiskComparison.Different;

    private void ShowStatus(long nowMs)
    {
        if (Stage != DeviceStage.Serving)
            return;
        if (_state!.Failure is { } failure)
            _life.Go(LifeState.Failed, failure, nowMs);
        else if (_state.IsFailing || IsLost)
            _life.Go(LifeState.Waiting, Loss, nowMs);
        else
            _life.Go(LifeState.Running, "", nowMs);
    }
}
