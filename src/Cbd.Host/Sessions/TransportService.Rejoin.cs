using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Disks;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>
/// What a host does that finds itself cleared: it was asleep, or cut off, and others took it for dead. All of it stops
/// storing; it registers anew, under another epoch; its backends are offered again under their ids; its devices have
/// failed, since others may have written to their disks meanwhile.
/// </summary>
internal sealed partial class TransportService
{
    private const int QuietWaitMs = 3_000;

    /// <summary>Devices of a claim that was cleared: they answer with EIO until they are stopped.</summary>
    private readonly List<DeviceService> _lostDevices = [];
    private readonly List<(int Backend, StartBackendOptions Options, Disk Disk)> _heldDisks = [];
    private volatile bool _wasCleared;
    private int _closers;
    private string _rejoinTrouble = "";

    /// <summary>Housekeeping's thread, when the claim is lost. False if the transport stays failed, or is being closed.</summary>
    private bool TryRejoin()
    {
        while (!_stopping)
        {
            if (Volatile.Read(ref _closers) == 0 && _verbs.TryEnter(RoundMs))
            {
                try
                {
                    if (!StopCleared())
                    {
                        // For good: what hangs may still reach its disk.
                        _wasCleared = false;
                        _logger.LogError("transport {Transport}: not registered anew: a disk does not finish its requests; restart the daemon when it answers again", Id);
                        return false;
                    }

                    if (RegisterAnew())
                    {
                        // A take-over may have to wait for others, and this thread has to beat.
                        new Thread(OfferAnew) { Name = $"cbd-tp{Id}-offer", IsBackground = true }.Start();
                        return true;
                    }
                }
                catch (CbdException e)
                {
                    if (_rejoinTrouble != e.Message)
                        _logger.LogError("transport {Transport}: not registered anew yet: {Reason}", Id, e.Message);
                    _rejoinTrouble = e.Message;
                }
                finally
                {
                    _verbs.Exit();
                }
            }

            Thread.Sleep(RoundMs);
        }

        return false;
    }

    /// <summary>
    /// Nothing of the lost claim is stored any more when this returns. Disks stay open, and locked. False if one does not
    /// finish what it was asked: only the end of this process ends that.
    /// </summary>
    private bool StopCleared()
    {
        foreach (BackendService backend in Backends())
        {
            if (backend.StopFencedKeepingDisk() is not { } disk)
                return false;
            lock (_lock)
            {
                _heldDisks.Add((backend.Backend, backend.Options, disk));
                _backends.Remove(backend.Backend);
            }
        }

        foreach (DeviceService device in Devices())
        {
            device.AwaitFence(QuietWaitMs);
            lock (_lock)
            {
                _lostDevices.Add(device);
                _devices.Remove(device.Device);
            }
        }

        return true;
    }

    /// <summary>Ends the lost claim and makes a new one. False if this transport is to be closed instead.</summary>
    private bool RegisterAnew()
    {
        // What is left of the old claim, in quarantine perhaps: this process knows best that it stores there no more.
        long limit = MonotonicClock.Milliseconds + QuietWaitMs;
        while (Step(now => Host.Leave(_opened.Clearing, now)) == StepResult.Again && MonotonicClock.Milliseconds < limit)
        {
            if (IsClosing)
                return false;
            Thread.Sleep(StepIntervalMs);
        }

        Host.GiveUp();
        Tracker.OwnHost = -1;
        Tracker.OwnHostHasStopped = false;
        var registration = new HostRegistration<MappedMemory, SafePolicy>(
            _memory, Geometry, _opened.Identity, _opened.Locks, Tracker, _opened.Clearing);
        while (Step(registration.Step) == StepResult.Again)
        {
            if (IsClosing)
            {
                registration.Cancel();
                return false;
            }

            Thread.Sleep(StepIntervalMs);
        }

        lock (_lock)
        {
            _opened = _opened with { Host = registration.Claim! };
            _backendRegistry = new BackendRegistry<MappedMemory, SafePolicy>(_memory, Host, Tracker);
            _blkdevRegistry = new BlkdevRegistry<MappedMemory, SafePolicy>(_memory, Host, Tracker);
            _condition = new TransportCondition(_node.FenceMs);
            Array.Clear(_seenChanges);
            _wasCleared = false;
            _rejoinTrouble = "";
        }

        _logger.LogWarning("transport {Transport}: registered anew as host {Host} ('{Name}')", Id, Host.Host, Host.Name);
        return true;
    }

    private bool IsClosing => _stopping || Volatile.Read(ref _closers) > 0;

    private StepResult Step(Func<long, StepResult> step)
    {
        lock (_lock)
            return step(MonotonicClock.Milliseconds);
    }

    private void OfferAnew()
    {
        lock (_verbs)
            OfferHeldDisks();
    }

    private void OfferHeldDisks()
    {
        if (_closed)
            return;
        foreach ((int backend, StartBackendOptions options, Disk disk) in _heldDisks)
        {
            try
            {
                BackendBody body = Describe(options, disk);
                Serve(options, disk, IsFree(backend) ? StartUnder(backend, body) : TakeOver(backend, body, fenced: false));
                _logger.LogWarning("backend {Backend}: offered again", backend);
            }
            catch (CbdException e)
            {
                _logger.LogError("backend {Backend}: not offered again: {Reason}", backend, e.Message);
                disk.Dispose();
            }
        }

        _heldDisks.Clear();
        AnnounceChange();
    }

    private bool IsFree(int backend) =>
        ClaimOperations<MappedMemory, SafePolicy>.Read(_memory, Geometry.BackendOffset(backend)).State == ClaimState.Free;

    private BackendClaim<MappedMemory, SafePolicy> StartUnder(int backend, BackendBody body)
    {
        lock (_lock)
            return _backendRegistry.Start(body, backend);
    }

    /// <summary>The device of that id whose claim was lost, if there is one.</summary>
    private DeviceService? FindLostDevice(int device)
    {
        lock (_lock)
            return _lostDevices.Find(d => d.Device == device);
    }

    private void StopLostDevice(DeviceService device)
    {
        device.StopFenced();
        lock (_lock)
            _lostDevices.Remove(device);
        _logger.LogInformation("device {Device} stopped; its claim had been cleared", device.Device);
    }

    private void StopAllLost()
    {
        foreach (DeviceService device in _lostDevices.ToArray())
            Try($"device {device.Device}", () => StopLostDevice(device));
        _heldDisks.ForEach(held => held.Disk.Dispose());
        _heldDisks.Clear();
    }
}
