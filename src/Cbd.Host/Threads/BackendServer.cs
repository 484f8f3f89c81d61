using System.Collections.Concurrent;
using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Memory;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Threads;

/// <summary>What drives one backend of this host: its disk, and the handler threads that serve its channels.</summary>
internal sealed class BackendServer : IGrowingDisk
{
    /// <summary>
    /// Backends whose disk did not finish: the kernel may still store into their buffers, so they are kept until the
    /// process ends.
    /// </summary>
    private static readonly ConcurrentBag<BackendServer> s_abandoned = [];

    /// <summary>What users call it; empty if nothing.</summary>
    public string Name { get; }

    private readonly Disk _disk;
    private readonly HandlerThread[] _threads;
    private readonly ILogger _logger;
    private bool _isDisposed;
    private int _isFinishTaken;
    private int _finishesInVain;
    private int _isLooking;
    private string? _trouble;
    private volatile bool _isAbandoned;

    /// <summary>The disk. It has what it was opened with also after it was closed.</summary>
    public Disk Disk => _disk;

    /// <summary>Makes the handler threads of a claimed backend; nothing is left of them if one cannot be made.</summary>
    /// <param name="life">Its life; claimed.</param>
    /// <param name="options">As it was started.</param>
    /// <param name="disk">Its disk: disposed at the end of the backend, but not where this throws.</param>
    /// <param name="condition">The condition of its session.</param>
    /// <param name="logger">For what happens to it.</param>
    public BackendServer(
        BackendLife<MappedMemory, SafePolicy> life, StartBackendOptions options, Disk disk, BeatCondition condition, ILogger logger)
    {
        Life = life;
        Options = options;
        _disk = disk;
        _logger = logger;
        BackendBody body = life.Claim!.Body;
        Name = body.Name;
        // After a take-over that is the recorded size, which the disk has at least.
        disk.Serve(body.SizeBytes);
        Served = life.MakeServed(disk.Faulty);
        var threads = new List<HandlerThread>(body.Handlers);
        try
        {
            for (int i = 0; i < body.Handlers; i++)
                threads.Add(new HandlerThread(life.Session.Memory, life.Session.Geometry, Served, i, condition, options.Mode, logger));
        }
        catch
        {
            threads.ForEach(t => t.Dispose());
            throw;
        }

        _threads = [.. threads];
        try
        {
            foreach (HandlerThread handler in _threads)
                handler.Start();
        }
        catch
        {
            // No thread can be had: those that run have attached nothing yet.
            foreach (HandlerThread thread in _threads)
                thread.BeginStop();
            TryEndThreads(Timeout.Infinite);
            foreach (HandlerThread thread in _threads)
                thread.Dispose();
            throw;
        }
    }

    public BackendLife<MappedMemory, SafePolicy> Life { get; }

    /// <summary>As it was started.</summary>
    public StartBackendOptions Options { get; }

    public ServedBackend Served { get; }

    public int Backend => Life.Backend;

    public string Engine => _disk.Engine;

    /// <summary>Changes of its size are made one at a time.</summary>
    public Lock GrowthLock { get; } = new();

    /// <summary>What the handler threads used so far, together.</summary>
    public ThreadUsage Usage
    {
        get
        {
            ThreadUsage all = default;
            foreach (HandlerThread thread in _threads)
                all = new ThreadUsage(all.CpuMicroseconds + thread.Usage.CpuMicroseconds, all.AllocatedBytes + thread.Usage.AllocatedBytes);
            return all;
        }
    }

    /// <summary>The last events of the channels that were served.</summary>
    public IEnumerable<FlightRecorder> Flights => _threads.SelectMany(t => t.Flights);

    /// <summary>The faults in force; null if none can be.</summary>
    public IReadOnlyList<FaultDescription>? Faults => _disk.Faults is { } faults ? [.. faults.List().Select(f => new FaultDescription(f.Spec.ToString(), f.Struck))] : null;

    /// <summary>Puts other faults in the place of those in force.</summary>
    public void SetFaults(IReadOnlyList<FaultSpec> faults)
    {
        if (_disk.Faults is not { } current)
            throw new CbdException(CbdErrorKind.Unsupported, $"backend {Backend} was started without a place for faults: start it with --fault off, and switch them then");
        _disk.CheckFaults(faults);
        LogFaults();
        current.Switch(faults);
        if (faults.Count == 0)
            _logger.LogInformation("backend {Backend}: no fault is in force", Backend);
        LogFaults();
    }

    /// <summary>One line for each fault in force: that it is, and what it did so far.</summary>
    public void LogFaults()
    {
        foreach (FaultDescription fault in Faults ?? [])
            _logger.LogWarning("backend {Backend}: fault {Fault} has struck {Count} request(s)", Backend, fault.Spec, fault.Struck);
    }

    /// <summary>Forgets a latched flush failure, here and in the entry.</summary>
    public void ClearFlushError()
    {
        _disk.ForgetFlushError();
        Served.ClearFlushError();
    }

    /// <summary>Hands an offered or quarantined channel to its thread: channel c runs on thread c mod n.</summary>
    public void Offer(int channel) => _threads[channel % _threads.Length].Offer(channel);

    /// <summary>Tells the handler threads to finish what they fetched, and to detach their channels.</summary>
    public void BeginEnd()
    {
        foreach (HandlerThread thread in _threads)
            thread.BeginStop();
    }

    /// <summary>
    /// Waits for the handler threads to end, and closes the disk. False if they did not end in time, or another thread is at it: call
    /// it again. When it is true the disk is closed, whoever closed it. Any thread.
    /// </summary>
    public bool TryEnd(int timeoutMs)
    {
        if (_isAbandoned || !TryEndThreads(timeoutMs) || !GrowthLock.TryEnter(timeoutMs))
            return false;
        try
        {
            if (!TryEndKeepingDisk(0, out Disk? disk))
                return false;
            disk?.Dispose();
            return true;
        }
        finally
        {
            GrowthLock.Exit();
        }
    }

    /// <summary>
    /// As <see cref="TryEnd"/>, but the disk stays open and locked, with nothing of this backend in flight: the caller's. It is
    /// null if another thread has given it back.
    /// </summary>
    public bool TryEndKeepingDisk(int timeoutMs, out Disk? disk)
    {
        disk = null;
        // The kernel may still store into what an abandoned disk has; and a disk that grows is not closed.
        if (_isAbandoned || !TryEndThreads(timeoutMs) || !GrowthLock.TryEnter(timeoutMs))
            return false;
        try
        {
            if (_isDisposed)
                return true;
            _isDisposed = true;
            foreach (HandlerThread thread in _threads)
                thread.Dispose();
            disk = _disk;
            return true;
        }
        finally
        {
            GrowthLock.Exit();
        }
    }

    /// <summary>
    /// A thread of the pool may finish the stop: true once, when the handler threads have ended. If it cannot,
    /// <see cref="GiveFinishBack"/>.
    /// </summary>
    public bool TryTakeFinish() => !_isAbandoned && TryEndThreads(0) && Interlocked.Exchange(ref _isFinishTaken, 1) == 0;

    /// <summary>The stop could not be finished now: the disk grows, say.</summary>
    public void GiveFinishBack()
    {
        Interlocked.Increment(ref _finishesInVain);
        Volatile.Write(ref _isFinishTaken, 0);
    }

    /// <summary>How often the stop could not be finished.</summary>
    public int FinishesInVain => Volatile.Read(ref _finishesInVain);

    /// <summary>The disk does not finish: its threads end without it, and what the kernel may store into stays.</summary>
    public void Abandon()
    {
        _isAbandoned = true;
        s_abandoned.Add(this);
        _logger.LogError("backend {Backend}: the disk does not finish", Backend);
        foreach (HandlerThread thread in _threads)
            thread.Abandon();
    }

    /// <summary>What became of that which its disk stands on; null if nothing is known. Any thread.</summary>
    public string? Trouble => Volatile.Read(ref _trouble);

    /// <summary>Has a thread of the pool look at what the disk stands on, if none is at it, and says what is new. Waits for nothing.</summary>
    public void BeginLook()
    {
        if (_isDisposed || _isAbandoned || Interlocked.Exchange(ref _isLooking, 1) != 0)
            return;
        PoolWork.QueueLook(Look);
    }

    private void Look()
    {
        try
        {
            string? now = _disk.FindTrouble();
            string? before = Interlocked.Exchange(ref _trouble, now);
            if (now is not null && now != before)
                _logger.LogError("backend {Backend}: {Trouble}", Backend, now);
            else if (now is null && before is not null)
                _logger.LogWarning("backend {Backend}: disk {Path} is well again", Backend, _disk.Path);
        }
        catch (ObjectDisposedException)
        {
            // It was stopped meanwhile.
        }
        catch (Exception e)
        {
            // Nobody else would see it, and it would end the process.
            _logger.LogWarning("backend {Backend}: its disk cannot be looked at: {Reason}", Backend, e.Message);
        }
        finally
        {
            Volatile.Write(ref _isLooking, 0);
        }
    }

    public long MeasureBytes() => _disk.MeasureBytes();

    public void Grow(long sizeBytes) => _disk.Grow(sizeBytes);

    public int Sync() => _disk.Sync();

    public void Serve(long sizeBytes) => _disk.Serve(sizeBytes);

    public string PathAt(long sizeBytes) => _disk.PathAt(sizeBytes);

    private bool TryEndThreads(int timeoutMs)
    {
        long limit = timeoutMs < 0 ? long.MaxValue : MonotonicClock.Milliseconds + timeoutMs;
        bool ended = true;
        foreach (HandlerThread thread in _threads)
            ended &= thread.Join(timeoutMs < 0 ? Timeout.Infinite : (int)Math.Max(0, limit - MonotonicClock.Milliseconds));
        return ended;
    }
}
