using Cbd.Host.Sessions;
using Cbd.Memory;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Protocol.Records;

namespace Cbd.Host.Devices;

/// <summary>The part of a device that goes on with what an earlier process of its host left.</summary>
internal sealed partial class DeviceLife<TMemory, TPolicy>
{
    /// <summary>It fails from its start, and has no channels.</summary>
    private bool _isHollow;

    /// <summary>
    /// Whether a claim that an earlier life of this host left is not cleared yet. Before that nothing can be said of a claim that is
    /// not an orphan.
    /// </summary>
    private bool HasToWaitForOwnDead(long nowMs)
    {
        _session.Tracker.Sample(nowMs);
        int host = TPolicy.WaitForOwnDead ? _session.Blkdevs.FindOwnDead() : -1;
        if (host < 0 || nowMs >= _mostMs)
            return false;
        _life.Go(LifeState.Waiting, $"host {host}, an earlier life of this one, is being cleared", nowMs);
        return true;
    }

    /// <summary>
    /// Adopts the entry and the writer word, and claims channels. If the claim is gone, or the record says that the device failed, it goes
    /// on as a device that fails. Throws where it may be tried again, and holds nothing then.
    /// </summary>
    private void ClaimAgain(long nowMs)
    {
        DeviceRecordBody record = _wish.Record!.Body;
        try
        {
            _session.CheckUsable();
            if (TPolicy.AdoptOnlyOwnUuid && record.HostUuid != _session.Claim.HostUuid)
                throw new CbdException(CbdErrorKind.Denied, $"device '{record.Name}' is of the host with uuid {record.HostUuid}, and this one is {_session.Claim.HostUuid}: start the daemon of its state directory");
            if (record.State != DeviceRecordState.Serving)
                throw new CbdException(CbdErrorKind.Invalid, $"device '{record.Name}' was {record.State.ToString().ToLowerInvariant()} when its daemon ended: start it with dev-start");
            _life.Go(LifeState.Starting, "it takes its claim up again", nowMs);
            if (record.RegionId != _session.Geometry.RegionId)
                throw new ClaimGoneException($"the region of device '{record.Name}' was formatted anew, or is another one: dev-stop, check the data, dev-start");
            if (_session.Blkdevs.Adopt(record.BlkdevId, record.BlkdevEpoch, record.Life, out _claim) != StepResult.Done)
                throw new CbdException(CbdErrorKind.Busy, $"device '{record.Name}': an earlier life of this host is being cleared: try again in a moment") { MayPass = true };
        }
        catch (ClaimGoneException e)
        {
            // Before its users are told.
            _wish.Record.StoreFailure(e.Message);
            (_isHollow, Stage) = (true, DeviceStage.Claimed);
            return;
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
            _isHollow = record.Failure.Length > 0;
            if (!_isHollow)
                ClaimChannels();
            Stage = DeviceStage.Claimed;
        }
        catch (CbdException e)
        {
            GiveBackClaims(e.Message, nowMs);
            throw;
        }
    }

    /// <summary>
    /// Becomes active and offers its channels, whether the backend is there or not: it is as after the loss of a session. The durability
    /// id that is served now is judged before the first offer.
    /// </summary>
    private void GoOn(string name, long nowMs)
    {
        DeviceRecordBody record = _wish.Record!.Body;
        try
        {
            _session.CheckUsable();
            if (_stopAsked)
                throw new CbdException(CbdErrorKind.Failed, $"device {Blkdev} was stopped before it had started");
            if (_claim is not null)
            {
                _claim.Activate([.. _channels.Select(c => c.Channel)], name);
                Observer?.Activated();
            }

            Identity = record.Identity;
            var session = new BackendSession(record.Session, TPolicy.CheckDurabilityId ? record.DurabilityId : Guid.Empty, record.Info, record.WasBuffered);
            MakeQueues(new BlkdevState(Blkdev, _claim?.Epoch ?? record.BlkdevEpoch, record.BackendId, session, record.Queues, _wish.Record, isAdopted: true)
            {
                QueuesMayGoOn = WakeQueues,
                JudgesBeforeStore = TPolicy.JudgeBeforeStore,
            });
        }
        catch (Exception e)
        {
            GiveBackClaims(e.Message, nowMs);
            throw;
        }

        Stage = DeviceStage.Attached;
        if (_isHollow)
            return;
        Watch(nowMs);
        if (_state!.Failure is not null)
            return;
        foreach (Queue<TMemory, TPolicy> queue in _queues)
            queue.Offer();
    }
}
