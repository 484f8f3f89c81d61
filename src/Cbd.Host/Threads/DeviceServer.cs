using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Memory;
using Cbd.Protocol.Channels;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Threads;

/// <summary>What drives one device of this host: the export that serves it, and the device that the export opens.</summary>
internal sealed class DeviceServer
{
    private const int PollIntervalMs = 1;

    private readonly BlkdevDevice _device;
    private readonly IExport _export;
    private readonly PollMode _mode;
    private readonly ILogger _logger;

    /// <summary>The export starts, shows another size, or ends: one at a time. It may wait for its users, so no other lock is held.</summary>
    private readonly Lock _exportLock = new();
    private LifeStatus? _reported;
    private bool _wasFailing;
    private volatile string _note = "";
    private long _shownBytes;
    private volatile int _shownNews;
    private int _isShowing;
    private int _isLooking;
    private string? _trouble;
    private int _isFinishTaken;
    private bool _isDisposed;

    /// <param name="life">Its life; active.</param>
    /// <param name="name">What users call it.</param>
    /// <param name="export">What serves it.</param>
    /// <param name="mode">How the export's threads wait.</param>
    /// <param name="condition">The condition of its session.</param>
    /// <param name="logger">For what happens to it.</param>
    public DeviceServer(DeviceLife<MappedMemory, SafePolicy> life, string name, IExport export, PollMode mode, BeatCondition condition, ILogger logger)
    {
        Life = life;
        Name = name;
        _export = export;
        _mode = mode;
        _logger = logger;
        _device = new BlkdevDevice(life.State!, life.Session.Memory, life.Queues, condition);
    }

    public DeviceLife<MappedMemory, SafePolicy> Life { get; }

    public int Device => Life.Blkdev;

    /// <summary>What users call it.</summary>
    public string Name { get; }

    /// <inheritdoc cref="NodeOptions.DeviceFailed"/>
    public Action<string, string>? OnFailed { get; init; }

    /// <summary>Node or NBD URI.</summary>
    public string Address => _export.Uri;

    public string Node => _export.Node;

    public BlockDeviceInfo Info => Life.State!.Info;

    /// <summary>What users may not expect, in one line: why the export has not the device's size. Empty if it has.</summary>
    public string Note => _note;

    /// <summary>The last events of its queues.</summary>
    public IEnumerable<FlightRecorder> Flights => Life.Queues.Select(q => q.Flight);

    /// <summary>Who uses it, in words for an error; null if nobody does.</summary>
    public string? DescribeUse() => _export.DescribeUse();

    /// <summary>Commands in flight on a channel of this device; −1 if it is not one. A glimpse for lists.</summary>
    public int OutstandingOn(int channel)
    {
        foreach (Queue<MappedMemory, SafePolicy> queue in Life.Queues)
        {
            if (queue.Channel == channel)
                return queue.InFlight;
        }

        return -1;
    }

    /// <summary>What another program has done to its export; null if nothing is known. Any thread.</summary>
    public string? Trouble => Volatile.Read(ref _trouble);

    /// <summary>Has a thread of the pool look at the export, if none is at it, and says what is new. Waits for nothing.</summary>
    public void BeginLook()
    {
        if (Node.Length == 0 || Trouble is not null || Life.Stage != DeviceStage.Serving || Interlocked.Exchange(ref _isLooking, 1) != 0)
            return;
        PoolWork.QueueLook(Look);
    }

    private void Look()
    {
        // Who starts or ends it may wait for its users meanwhile; the next beat looks again.
        bool isMine = _exportLock.TryEnter();
        try
        {
            if (!isMine || _isDisposed || Life.Stage != DeviceStage.Serving || _export.FindTrouble() is not { } trouble)
                return;
            Volatile.Write(ref _trouble, trouble);
            _logger.LogError("device {Device}: {Trouble}", Device, trouble);
        }
        catch (Exception e)
        {
            // Nobody else would see it, and it would end the process.
            _logger.LogWarning("device {Device}: its export cannot be looked at: {Reason}", Device, e.Message);
        }
        finally
        {
            if (isMine)
                _exportLock.Exit();
            Volatile.Write(ref _isLooking, 0);
        }
    }

    /// <summary>Gives the attached queues to the export.</summary>
    public void Serve()
    {
        lock (_exportLock)
        {
            if (Life.Stage != DeviceStage.Serving)
                throw new CbdException(CbdErrorKind.Failed, $"device {Device} was stopped before it had started");
            // Read before the export reads it: a change that comes in between is shown once more.
            long size = Info.SizeBytes;
            _export.LookAgain = BeginLook;
            _export.Serve(_device, Life.Queues.Length, _mode);
            Volatile.Write(ref _shownBytes, size);
        }
    }

    /// <summary>Ends the export: when it returns no thread drives a queue any more. Not forced it may throw Busy.</summary>
    public void EndExport(bool force)
    {
        lock (_exportLock)
        {
            Volatile.Write(ref _shownBytes, 0);
            _export.Stop(force);
        }
    }

    /// <inheritdoc cref="IExport.TryPark"/>
    public bool TryPark()
    {
        lock (_exportLock)
            return !_isDisposed && Life.Stage == DeviceStage.Serving && _export.TryPark();
    }

    /// <summary>A thread of the pool may finish the stop: true once, when the device is over.</summary>
    public bool TryTakeFinish() => Life.IsOver && Interlocked.Exchange(ref _isFinishTaken, 1) == 0;

    /// <summary>Gives back the address of a device that is over.</summary>
    public void DisposeExport()
    {
        lock (_exportLock)
        {
            if (_isDisposed)
                return;
            _isDisposed = true;
            _export.Dispose();
        }
    }

    /// <summary>
    /// Waits, after this host was cleared, until no thread stores into the region for this device any more: each queue is
    /// fenced by the thread that drives it. Where one does not, the export is ended first.
    /// </summary>
    public void AwaitFence(int timeoutMs)
    {
        var watch = Stopwatch.StartNew();
        while (!Life.IsQuiet)
        {
            if (watch.ElapsedMilliseconds > timeoutMs)
            {
                EndExport(force: true);
                Life.Fence();
                return;
            }

            Thread.Sleep(PollIntervalMs);
        }
    }

    /// <summary>
    /// The device has a size that the users of the export were not told of, or could not be told of before the backend
    /// said it again. False while it is not served.
    /// </summary>
    public bool HasNewSize => IsNew(Info.SizeBytes, Life.SizeNews);

    private bool IsNew(long size, int news) =>
        Volatile.Read(ref _shownBytes) is > 0 and var shown && (shown != size || (_note.Length > 0 && _shownNews != news));

    /// <summary>
    /// Tells the users of the export which size the device has now. Where that cannot be done they keep the old one, and
    /// <see cref="Note"/> says why.
    /// </summary>
    public void ShowSize()
    {
        lock (_exportLock)
        {
            // In this order: with a size comes its news. What is said from here on is shown once more.
            long size = Info.SizeBytes;
            int news = Life.SizeNews;
            if (!IsNew(size, news))
                return;
            _shownNews = news;
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
    }

    /// <summary>Users may have to be waited for, so a thread of the pool shows the size.</summary>
    public void ShowSizeSoon()
    {
        if (Interlocked.Exchange(ref _isShowing, 1) != 0)
            return;
        PoolWork.Queue(() =>
        {
            Volatile.Write(ref _isShowing, 0);
            try
            {
                ShowSize();
            }
            catch (Exception e)
            {
                // Nobody else would see it, and it would end the process.
                _logger.LogError(e, "device {Device}: its size cannot be shown", Device);
            }
        });
    }

    /// <summary>One log line per change. The housekeeping thread, under no lock.</summary>
    public void Report()
    {
        LifeStatus status = Life.Status;
        bool failing = Life.IsFailing;
        if (ReferenceEquals(status, _reported) && failing == _wasFailing)
            return;
        LifeStatus? before = _reported;
        (_reported, _wasFailing) = (status, failing);
        switch (status.State)
        {
            case LifeState.Running when before is not null && before.State != LifeState.Starting:
                _logger.LogInformation("device {Device}: running (backend {Backend}: {Word})", Device, Life.Backend, Life.BackendWord);
                break;
            case LifeState.Waiting:
                _logger.LogWarning("device {Device}: {State} (backend {Backend}: {Word}): {Why}", Device, failing ? "failing" : "waiting", Life.Backend, Life.BackendWord, status.Reason);
                break;
            case LifeState.Failed:
                _logger.LogWarning("device {Device}: failed: {Why} (backend {Backend}: {Word})", Device, status.Reason, Life.Backend, Life.BackendWord);
                OnFailed?.Invoke(Name, status.Reason);
                FlightFiles.OnFailure($"device {Device}: failed: {status.Reason}");
                break;
        }
    }
}
