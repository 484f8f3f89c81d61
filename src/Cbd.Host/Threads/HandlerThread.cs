using System.Collections.Concurrent;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Threads;

/// <summary>
/// One handler thread of a backend: drives the handlers of its channels and one queue of the disk; spins while there is
/// work, then sleeps on the doorbells of its channels.
/// </summary>
internal sealed class HandlerThread : IDisposable
{
    private const int DiskDepth = 256;
    private const long BufferBytes = 8 << 20;
    private const int IdleSleepMicroseconds = 1_000_000;
    private const int FirstDiskWaitMicroseconds = 50;
    private const int LongestDiskWaitMicroseconds = 1_000;
    private const int LongestBlindSleepMicroseconds = 5_000;

    private readonly MappedMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly ServedBackend _backend;
    private readonly BeatCondition _condition;
    private readonly PollMode _mode;
    private readonly ILogger _logger;
    private readonly IBlockQueue _disk;
    private readonly NativeBuffer _buffers;
    private readonly HandlerGroup<MappedMemory, SafePolicy> _group;
    private readonly DoorbellSleeper _sleeper = new();
    private readonly ConcurrentQueue<int> _offers = new();
    private readonly ConcurrentDictionary<int, bool> _served = new();
    private readonly Lock _offerLock = new();
    private readonly List<string> _failures = [];
    private readonly Thread _thread;
    private int _loggedFailures;
    private volatile bool _stop;
    private volatile bool _abandon;
    private bool _disposed;
    private int _servedCount;
    private ThreadClock _clock;
    private long _allocatedBytes;

    /// <param name="condition">When fenced, this host may not store into the region any more: everything is left as it is.</param>
    public HandlerThread(
        MappedMemory memory, RegionGeometry geometry, ServedBackend backend, int number, BeatCondition condition, PollMode mode, ILogger logger)
    {
        _mode = mode;
        _memory = memory;
        _geometry = geometry;
        _backend = backend;
        _condition = condition;
        _logger = logger;
        _buffers = new NativeBuffer(Math.Max(BufferBytes, new ChannelLayout(geometry, 0).PoolBytes));
        try
        {
            _disk = backend.Disk.OpenQueue(DiskDepth, _buffers);
            _group = new HandlerGroup<MappedMemory, SafePolicy>(memory, geometry, backend, _disk, _buffers);
        }
        catch
        {
            _disk?.Dispose();
            _buffers.Dispose();
            throw;
        }

        _thread = new Thread(Run) { Name = $"cbd-be{backend.Backend}-h{number}", IsBackground = true };
    }

    /// <exception cref="CbdException">No thread can be had.</exception>
    public void Start() => NeededThread.Begin(_thread);

    /// <summary>What the thread used since it started. Any thread; nothing before it runs and after it ended.</summary>
    public ThreadUsage Usage => new(_clock.CpuMicroseconds, Volatile.Read(ref _allocatedBytes));

    /// <summary>The last events of the channels that this thread has served. Any thread.</summary>
    public IReadOnlyList<FlightRecorder> Flights => _group.Flights;

    /// <summary>Looks at a channel that was offered or quarantined. Any thread; may be called again for one that is served already.</summary>
    public void Offer(int channel)
    {
        lock (_offerLock)
        {
            if (_disposed || _stop || _served.ContainsKey(channel))
                return;
            _offers.Enqueue(channel);
            _sleeper.Interrupt();
        }
    }

    /// <summary>Finishes what was fetched and detaches all channels.</summary>
    public void BeginStop()
    {
        _stop = true;
        _sleeper.Interrupt();
        _disk.Interrupt();
    }

    /// <summary>Waits for the thread, which need not have been started, to end; false if the disk did not finish in time.</summary>
    public bool Join(int timeoutMs) => (_thread.ThreadState & ThreadState.Unstarted) != 0 || _thread.Join(timeoutMs);

    /// <summary>Ends without waiting for the disk; for a disk that hangs. Its buffers stay until the process ends.</summary>
    public void Abandon()
    {
        _abandon = true;
        _disk.Interrupt();
        _sleeper.Interrupt();
    }

    /// <summary>Frees what the thread used; it must have ended.</summary>
    public void Dispose()
    {
        // Housekeeping may be about to offer a channel.
        lock (_offerLock)
            _disposed = true;
        _disk.Dispose();
        _buffers.Dispose();
        _sleeper.Dispose();
    }

    private void Run()
    {
        try
        {
            PumpThread.UseExactTimers();
            _clock = ThreadClock.OfCurrentThread();
            Pump();
            _clock = default;
        }
        catch (Exception e)
        {
            // A broken invariant of our own: going on could damage the disk. Die; the device's side waits and re-issues.
            _logger.LogCritical(e, "backend {Backend}: handler thread failed", _backend.Backend);
            FlightFiles.OnCrash($"backend {_backend.Backend}: handler thread failed: {e}");
            Environment.FailFast($"backend {_backend.Backend}: handler thread failed", e);
        }
    }

    private void Pump()
    {
        Span<long> doorbells = stackalloc long[DoorbellSleeper.MaximumDoorbells];
        var idle = new IdleStrategy(_mode);
        long allocatedAtStart = GC.GetAllocatedBytesForCurrentThread();
        int blindSleep = FirstDiskWaitMicroseconds;
        bool stopping = false;
        while (!_abandon)
        {
            if (_condition.IsFenced)
            {
                DrainFenced();
                return;
            }

            if (_condition.IsOverdue)
            {
                // Housekeeping looks whether the entry is still ours.
                Thread.Sleep(1);
                continue;
            }

            if (_stop && !stopping)
            {
                stopping = true;
                _group.BeginStop();
            }

            if (!_offers.IsEmpty)
                TakeOffers();
            bool progressed = _group.Poll(MonotonicClock.CoarseMicroseconds);
            if (_servedCount != _group.Count)
                ForgetGone();
            if (progressed)
            {
                idle.Progressed();
                blindSleep = FirstDiskWaitMicroseconds;
                continue;
            }

            if (stopping && _group.Count == 0)
                return;
            Volatile.Write(ref _allocatedBytes, GC.GetAllocatedBytesForCurrentThread() - allocatedAtStart);
            if (idle.KeepsSpinning)
            {
                idle.Yield(_condition.CanBeWoken(_memory) && SleepsOnDoorbellsAlone);
                continue;
            }

            if (_group.Outstanding > 0 || _group.IsStalled)
            {
                // New commands are looked for after each of these sleeps; they come mostly after completions anyway.
                _disk.Wait(idle.NextSleepMicroseconds());
                continue;
            }

            LogFailures();
            if (!_group.TryAnnounceSleep(doorbells, out int count))
                continue;
            int sleep = IdleSleepMicroseconds;
            if (stopping || count < _group.Count || (_group.Count > 0 && !_condition.CanBeWoken(_memory)))
            {
                // Nobody, or not everybody, can wake us: look again soon, and less often the longer nothing comes.
                sleep = blindSleep;
                blindSleep = Math.Min(blindSleep + blindSleep / 8 + 1, LongestBlindSleepMicroseconds);
            }

            _sleeper.Wait(_memory, doorbells[..count], sleep, unwatchedMicroseconds: LongestBlindSleepMicroseconds);
            if (!_condition.IsOverdueAfterSleep)
                _group.RetractSleep();
        }
    }

    /// <summary>It would sleep now until somebody rings: nothing is at the disk or stalled, and there is a doorbell for each channel.</summary>
    private bool SleepsOnDoorbellsAlone => _group.Outstanding == 0 && !_group.IsStalled && _group.Count <= DoorbellSleeper.MaximumDoorbells;

    /// <summary>This host was cleared: what is at the disk ends, and nothing is stored into the region.</summary>
    private void DrainFenced()
    {
        Span<BlockCompletion> completions = new BlockCompletion[64];
        while (_disk.Outstanding > 0 && !_abandon)
        {
            if (_disk.Poll(completions) == 0)
                _disk.Wait(LongestDiskWaitMicroseconds);
        }
    }

    private void TakeOffers()
    {
        while (_offers.TryDequeue(out int channel))
        {
            if (!_group.TakeOffer(channel))
                continue;
            _served[channel] = true;
            _servedCount++;
            _logger.LogInformation("backend {Backend}: channel {Channel} attached", _backend.Backend, channel);
        }
    }

    private void ForgetGone()
    {
        _servedCount = _group.Count;
        foreach (int channel in _served.Keys)
        {
            if (!_group.Serves(channel) && _served.TryRemove(channel, out _))
                _logger.LogInformation("backend {Backend}: channel {Channel} detached", _backend.Backend, channel);
        }
    }

    private void LogFailures()
    {
        _failures.Clear();
        _group.CollectFailures(_failures);
        if (_failures.Count == _loggedFailures)
            return;
        _loggedFailures = _failures.Count;
        if (_failures.Count > 0)
            FlightFiles.OnFailure($"backend {_backend.Backend}: {_failures[^1]}");
        foreach (string failure in _failures)
            _logger.LogWarning("backend {Backend}: {Failure}: waiting for the blkdev to reset it", _backend.Backend, failure);
    }
}
