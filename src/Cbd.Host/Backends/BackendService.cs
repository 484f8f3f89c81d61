using System.Collections.Concurrent;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Disks;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Host.Sessions;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Backends;

/// <summary>One backend of this host: its disk, its claim, and the handler threads that serve its channels.</summary>
internal sealed class BackendService
{
    private const int StopTimeoutMs = 20_000;

    /// <summary>
    /// Backends whose disk did not finish: the kernel may still store into their buffers, so they are kept until the
    /// process ends.
    /// </summary>
    private static readonly ConcurrentBag<BackendService> s_abandoned = [];

    private readonly Disk _disk;
    private readonly HandlerThread[] _threads;
    private readonly ILogger _logger;

    public BackendService(
        MappedMemory memory,
        RegionGeometry geometry,
        BackendClaim<MappedMemory, SafePolicy> claim,
        Disk disk,
        TransportCondition condition,
        StartBackendOptions options,
        ILogger logger)
    {
        Claim = claim;
        Options = options;
        _disk = disk;
        // After a take-over that is the recorded size, which the disk has at least.
        disk.Serve(claim.Body.SizeBytes);
        _logger = logger;
        bool readOnly = claim.Body.ReadOnly;
        Served = new ServedBackend(
            claim.Backend,
            claim.Session,
            disk.Faulty,
            claim.Body.FlushError,
            error => claim.StoreFlushError(error),
            (blkdev, epoch) => BlkdevRegistry<MappedMemory, SafePolicy>.IsEntitled(memory, geometry, claim.Backend, readOnly, blkdev, epoch));
        var threads = new List<HandlerThread>(claim.Body.Handlers);
        try
        {
            for (int i = 0; i < claim.Body.Handlers; i++)
                threads.Add(new HandlerThread(memory, geometry, Served, i, condition, options.Mode, logger));
        }
        catch
        {
            threads.ForEach(t => t.Dispose());
            throw;
        }

        _threads = [.. threads];
        foreach (HandlerThread thread in _threads)
            thread.Start();
    }

    public BackendClaim<MappedMemory, SafePolicy> Claim { get; }

    /// <summary>As it was started.</summary>
    public StartBackendOptions Options { get; }

    public ServedBackend Served { get; }

    public int Backend => Claim.Backend;

    public string Engine => _disk.Engine;

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

    /// <summary>Its threads may still run, and use the region's mapping.</summary>
    public bool IsAbandoned { get; private set; }

    /// <summary>Forgets a latched flush failure, here and in the entry.</summary>
    public void ClearFlushError()
    {
        _disk.ForgetFlushError();
        Served.ClearFlushError();
    }

    /// <summary>
    /// Makes the backend larger, and returns its size then. The disk has it, on its medium, before handlers accept it, and
    /// they do before a blkdev learns of it: a kill in between leaves a disk that is larger than what is served.
    /// </summary>
    /// <param name="sizeBytes">The size that is wanted; null: what the disk has.</param>
    public long Resize(long? sizeBytes)
    {
        BackendBody body = Claim.Body;
        long present = _disk.MeasureBytes();
        if (present < body.SizeBytes)
            throw new CbdException(CbdErrorKind.Corrupt, $"'{body.Path}' has {present} bytes, fewer than the {body.SizeBytes} that backend {Backend} serves: it was made smaller outside; restore its size");
        long wanted = sizeBytes ?? present;
        if (wanted % body.LogicalBlockBytes != 0)
            throw new CbdException(CbdErrorKind.Invalid, $"backend {Backend}: {wanted} bytes is not a multiple of its block size {body.LogicalBlockBytes}: {(sizeBytes is null ? $"make '{body.Path}' one, or give a size of at least {body.SizeBytes}" : "round the size")}");
        if (wanted < body.SizeBytes)
            throw new CbdException(CbdErrorKind.Busy, $"backend {Backend} has {body.SizeBytes} bytes and cannot shrink to {wanted} while it is served: stop its devices (dev-stop) and it (backend-stop), make the disk smaller, and start it again");
        _disk.Grow(wanted);
        int error = _disk.Sync();
        if (error != 0)
        {
            Served.LatchFlushError(error);
            throw new CbdException(CbdErrorKind.Failed, $"backend {Backend}: the disk could not be flushed after it grew (errno {error}), which counts as a failed flush: see backend-list and backend-clear");
        }

        if (_disk.MeasureBytes() is var now && now < wanted)
            throw new CbdException(CbdErrorKind.Failed, $"'{body.Path}' has {now} bytes after it was to grow to {wanted}: something else made it smaller; try again");
        _disk.Serve(wanted);
        if (!Claim.Update(next => next with { SizeBytes = wanted, Path = wanted == body.SizeBytes ? next.Path : _disk.PathAt(wanted) }))
            throw new CbdException(CbdErrorKind.Failed, $"backend {Backend}: this host was cleared by another: register again, then start the backend");
        return wanted;
    }

    /// <summary>Hands an offered or quarantined channel to its thread: channel c runs on thread c mod n.</summary>
    public void Offer(int channel) => _threads[channel % _threads.Length].Offer(channel);

    /// <summary>
    /// Drains, detaches, and gives the disk back. Throws if the disk does not finish: unforced, the entry stays CLOSING
    /// and stopping can be tried again; forced, it stays until this process ends, and so does what the kernel may still
    /// store into.
    /// </summary>
    public void Stop(bool force)
    {
        if (!TryEndThreads())
        {
            if (!force)
                throw new CbdException(CbdErrorKind.TimedOut, $"backend {Backend}: the disk did not finish its requests within {StopTimeoutMs / 1000} s: try again, or stop it with --force");
            Abandon();
            throw new CbdException(CbdErrorKind.TimedOut, $"backend {Backend}: the disk does not finish its requests; they are left to the kernel, and the entry and the disk's lock to the end of this process: restart the daemon when the disk answers again");
        }

        foreach (HandlerThread thread in _threads)
            thread.Dispose();
        _disk.Dispose();
        Claim.EndClose();
    }

    /// <summary>Ends after this host was cleared: nothing is stored into the region any more.</summary>
    public void StopFenced() => StopFencedKeepingDisk()?.Dispose();

    /// <summary>
    /// As <see cref="StopFenced"/>, but the disk stays open and locked, with nothing of this backend in flight; the caller
    /// disposes it. Null if it does not finish what it was asked.
    /// </summary>
    public Disk? StopFencedKeepingDisk()
    {
        if (!TryEndThreads())
        {
            Abandon();
            return null;
        }

        foreach (HandlerThread thread in _threads)
            thread.Dispose();
        return _disk;
    }

    private bool TryEndThreads()
    {
        foreach (HandlerThread thread in _threads)
            thread.BeginStop();
        long limit = MonotonicClock.Milliseconds + StopTimeoutMs;
        bool ended = true;
        foreach (HandlerThread thread in _threads)
            ended &= thread.Join((int)Math.Max(0, limit - MonotonicClock.Milliseconds));
        return ended;
    }

    private void Abandon()
    {
        IsAbandoned = true;
        s_abandoned.Add(this);
        _logger.LogError("backend {Backend}: the disk does not finish", Backend);
        foreach (HandlerThread thread in _threads)
            thread.Abandon();
    }
}
