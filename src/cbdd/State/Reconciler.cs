using Cbd.Host.Wanted;
using Cbd.Memory;
using Cbd.Protocol;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.State;

/// <summary>
/// Starts what is wanted and not there, in the record's order, again and again with growing pauses. A reason is logged once. What
/// waits for another host, or for a disk, does not keep the rest waiting.
/// </summary>
/// <param name="control">Does the verbs, and records nothing.</param>
internal sealed class Reconciler(IControl control, StateRecord record, ILogger logger) : IDisposable
{
    private const int LeastPauseMs = 250;
    private const int MostPauseMs = 10_000;

    private const int NewsMs = 500;

    private readonly Dictionary<int, Task> _attempts = [];
    private readonly AutoResetEvent _moved = new(false);

    /// <summary>What an earlier process of this daemon served goes on by itself as far as it can: its users wait.</summary>
    public Func<string, bool> IsKept { get; init; } = static _ => false;

    /// <summary>Called when a try has ended, however.</summary>
    public Action Settled { get; init; } = static () => { };
    private Thread? _thread;
    private volatile bool _isEnding;
    private volatile bool _isTold;

    /// <summary>The next thing is begun after this time, ms: most take less, and ids stay what they were.</summary>
    public int PatienceMs { get; init; } = 2_000;

    /// <summary>All that is waited for in one pass, ms: what is in the way of one thing must not hold up many.</summary>
    public int PassMs { get; init; } = 5_000;

    /// <summary>Goes on in a thread of its own until <see cref="End"/>.</summary>
    public void Start()
    {
        _thread = NeededThread.Start("cbd-wanted", Run);
    }

    /// <summary>Something changed here: what could not be started may be possible now.</summary>
    public void Wake()
    {
        _isTold = true;
        _moved.Set();
    }

    /// <summary>Another host announced something.</summary>
    public void Hear() => _moved.Set();

    /// <summary>Tries everything that is pending once; returns how much still is. <paramref name="isEnding"/> is asked before each.</summary>
    public int Pass(Func<bool> isEnding)
    {
        var budgetEnd = Environment.TickCount64 + PassMs;
        if (record.IsDirty)
            record.Keep();
        foreach (var number in record.Entries.Where(IsLeft).Select(e => e.Number))
        {
            if (isEnding())
                break;
            if (_attempts.TryGetValue(number, out var before) && !before.IsCompleted)
                continue;
            record.BeginRestore(number);
            try
            {
                var attempt = Task.Factory.StartNew(() => Try(number), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
                _attempts[number] = attempt;
                // One that waits for others is not what the daemon may die of.
                if (!attempt.Wait((int)Math.Clamp(budgetEnd - Environment.TickCount64, 0, PatienceMs)))
                    record.EndRestore(number);
            }
            catch (Exception e) when (e is OutOfMemoryException or ThreadStartException or TaskSchedulerException)
            {
                // No thread for it now: it is tried again.
                record.EndRestore(number);
                record.SetReason(number, $"no thread can be had: {e.Message}");
            }
        }

        return record.Entries.Count(IsLeft);
    }

    private static bool IsLeft(StateEntry entry) => WantedRules<SafePolicy>.IsDue(entry) || WantedRules<SafePolicy>.IsToFinish(entry);

    /// <summary>Nothing more is begun.</summary>
    public void End()
    {
        _isEnding = true;
        _moved.Set();
    }

    /// <summary>As <see cref="End"/>, and waits for what is being started. May be called twice; <see cref="Wake"/> may still be called.</summary>
    public void Dispose()
    {
        End();
        _thread?.Join();
        Task.WaitAll([.. _attempts.Values]);
    }

    /// <summary>After <see cref="End"/>: waits until nothing is being started any more, or the time is over.</summary>
    public void AwaitAttempts(int timeoutMs) => Task.WaitAll([.. _attempts.Values], timeoutMs);

    /// <summary>The request for a recorded transport: on the region that it had, unless that cannot be there any more.</summary>
    internal static RegisterTransportOptions Expecting(RegisterTransportOptions options, TransportEntry recorded) =>
        WantedRules<SafePolicy>.ExpectRegion(recorded, ProcessIdentity.BootId, IsVolatile(recorded.Region)) is { } uuid
            // What is formatted now could not be the region that was there.
            ? new RegisterTransportOptions { Host = options.Host, Path = options.Path, Coherence = options.Coherence, TimeoutSeconds = options.TimeoutSeconds, RegionUuid = uuid, Limit = options.Limit, Caller = options.Caller }
            : options with { RegionUuid = null };

    /// <summary>A transport as it is recorded once it is registered.</summary>
    internal static StateEntry Confirmed(IControl control, StateEntry wanted, int id) => wanted with
    {
        Transport = wanted.Transport! with
        {
            Uuid = control.Execute(Operations.GetTransport, new TransportTarget { Transport = id }).Uuid,
            BootId = ProcessIdentity.BootId,
        },
    };

    private static bool IsVolatile(string region)
    {
        try
        {
            return new DriveInfo(PathText.DirectoryFromCaller(Path.GetDirectoryName(region)!)).DriveFormat is "tmpfs" or "ramfs" or "hugetlbfs";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or CbdException)
        {
            return false;
        }
    }

    private void Run()
    {
        var pauses = new RetryPauses(LeastPauseMs, MostPauseMs, NewsMs);
        while (!_isEnding)
        {
            var left = Pass(() => _isEnding);
            pauses.Passed(left, record.IsDirty, Environment.TickCount64);
            var isAwaited = record.Entries.Any(e => IsLeft(e) && GoesOn(e));
            while (!_isEnding && (isAwaited ? pauses.NextWithin(LeastPauseMs) : pauses.NextMs) - Environment.TickCount64 is > 0 and var ms && _moved.WaitOne(ms > int.MaxValue ? Timeout.Infinite : (int)ms))
            {
                if (_isTold)
                    pauses.Told(Environment.TickCount64);
                else
                    pauses.Heard(Environment.TickCount64);
                _isTold = false;
            }
        }
    }

    private void Try(int number)
    {
        // A verb that asks for the same is at it already, or this waits for its next turn.
        var limit = new StartLimit();
        if (!record.TryBeginAttempt(number, timeoutMs: 0, limit))
            return;
        try
        {
            // What came before may have changed it: a backend has another id now, say.
            if (record.Find(number) is not { } entry)
                return;
            if (WantedRules<SafePolicy>.IsToFinish(entry))
                FinishStop(entry, limit);
            else if (WantedRules<SafePolicy>.IsDue(entry))
                Try(entry, limit);
        }
        finally
        {
            record.EndAttempt(number);
            Settled();
        }
    }

    private bool GoesOn(StateEntry entry) => entry.Device?.Name is { } name && IsKept(name);

    private void Try(StateEntry entry, StartLimit limit)
    {
        try
        {
            var (started, what, takeBack) = Start(entry, limit);
            if (record.Confirm(entry.Number, started))
                logger.LogInformation("restored {What}", what);
            else
                record.TakeBack(what, takeBack);
        }
        catch (Exception e)
        {
            if (!record.Refuse(entry.Number, e))
                return;
            // What is no error of ours is a bug, or no thread: the rest goes on.
            logger.LogError(e is CbdException ? null : e, "not restored: {What}: {Reason}", entry, e.Message);
        }
    }

    /// <summary>An earlier life of this daemon was stopping a backend when it died.</summary>
    private void FinishStop(StateEntry entry, StartLimit limit)
    {
        try
        {
            var transport = TransportOf(entry.Region);
            var step = WantedRules<SafePolicy>.FindStopStep(entry, Offered(control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true })));
            if (step == StopStep.Refused)
            {
                record.CancelStop([entry.Number]);
                logger.LogWarning("{What} was being stopped when the daemon died, and is in use: it is started again", entry);
                _moved.Set();
                return;
            }

            if (step == StopStep.Force)
            {
                // Somebody else may have the name by now.
                var (id, _) = StartBackend(transport, entry.Backend! with { Name = null }, limit);
                control.Execute(Operations.StopBackend, new StopRequest { Transport = transport, Id = id, Force = true });
            }

            record.EndStop([entry.Number]);
            logger.LogInformation("{What} was being stopped when the daemon died: it is stopped", entry);
        }
        catch (Exception e)
        {
            record.EndRestore(entry.Number);
            if (record.SetReason(entry.Number, e.Message))
                logger.LogError(e is CbdException ? null : e, "{What} was being stopped when the daemon died, and is not stopped yet: {Reason}", entry, e.Message);
        }
    }

    /// <summary>Starts it: what it is now, in words, and how it is stopped if it is wanted no more.</summary>
    private (StateEntry Started, string What, Action TakeBack) Start(StateEntry entry, StartLimit limit)
    {
        var confirmed = WantedRules<SafePolicy>.Started(entry);
        if (entry.Transport is { } wanted)
        {
            var options = new RegisterTransportOptions { Host = wanted.Host, Path = wanted.Region, Coherence = wanted.Coherence, Limit = limit, Caller = wanted.Caller };
            var id = control.Execute(Operations.RegisterTransport, Expecting(wanted.FormatIfEmpty?.AddTo(options) ?? options, wanted)).TransportId;
            return (Confirmed(control, confirmed, id), $"transport {id} on {wanted.Region}", () => control.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = id }));
        }

        var transport = TransportOf(entry.Region);
        if (entry.Backend is { } backend)
        {
            var (id, path) = StartBackend(transport, backend, limit);
            return (confirmed with { Backend = backend with { BackendId = id, Path = path, DiskIdentity = WantedRules<SafePolicy>.Lasting(FindBackend(transport, id)?.DiskIdentity) ?? backend.DiskIdentity } },
                $"backend {id} on {path}",
                () => control.Execute(Operations.StopBackend, new StopRequest { Transport = transport, Id = id, Leaves = true }));
        }

        var wish = entry.Device!;
        // What goes on does so on the backend that it has, also while that is away.
        var isKept = GoesOn(entry);
        var on = isKept
            ? new OfferedBackend(wish.BackendId, wish.BackendPath, wish.DiskIdentity ?? "", false, false, false)
            : WantedRules<SafePolicy>.FindBackend(wish, Offered(control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true })));
        var device = StartDevice(transport, wish, on, limit);
        if (isKept && control.Execute(Operations.ListDevices, new ListRequest { Transport = transport }).FirstOrDefault(d => d.BlkdevId == device.Device) is { BackendId: >= 0 } adopted)
            on = on with { Id = adopted.BackendId };
        return (confirmed with { Device = wish with { BlkdevId = device.Device, Name = device.Name, BackendId = on.Id, BackendPath = on.Path, DiskIdentity = on.Identity } },
            $"device {device.Node}{(device.Note is null ? "" : $": {device.Note}")}",
            () => control.Execute(Operations.StopDevice, new StopRequest { Transport = transport, Id = device.Device, Name = device.Name, Force = true }));
    }

    private (int Id, string Path) StartBackend(int transport, BackendEntry backend, StartLimit limit)
    {
        var left = WantedRules<SafePolicy>.FindLeft(backend, Offered(control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true })));
        // Of a disk without a file the region knows the last size.
        var path = left?.Path ?? backend.Path;
        var id = control.Execute(Operations.StartBackend, new StartBackendOptions
        {
            Transport = transport,
            Path = path,
            Name = backend.Name,
            DiskIdentity = backend.DiskIdentity,
            IsUnattended = true,
            Caller = backend.Caller,
            Handlers = backend.Handlers,
            Backend = left?.Id,
            ReadOnly = backend.ReadOnly,
            Engine = backend.Engine,
            BlockBytes = backend.BlockSize,
            Mode = PollModeText.Parse(backend.Mode ?? PollModeText.Adaptive),
            Limit = limit,
        }).BackendId;
        return (id, path);
    }

    /// <summary>Backends of a list, as the rules of the record see them.</summary>
    internal static IReadOnlyList<OfferedBackend> Offered(IEnumerable<BackendDescription> backends) =>
        [.. backends.Select(b => new OfferedBackend(b.BackendId, b.Path, b.DiskIdentity, b.Alive == "alive", b.Blkdevs.Count > 0, b.IsStopped))];

    private StartedDevice StartDevice(int transport, DeviceEntry device, OfferedBackend on, StartLimit limit) => control.Execute(Operations.StartDevice, device.ToOptions() with
    {
        Transport = transport,
        Backend = on.Id,
        DiskIdentity = on.Identity.Length > 0 ? on.Identity : null,
        Limit = limit,
    });

    private BackendDescription? FindBackend(int transport, int backend) =>
        control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true }).FirstOrDefault(b => b.BackendId == backend);

    private int TransportOf(string region) =>
        control.Execute(Operations.ListTransports, new ControlRequest()).FirstOrDefault(t => t.Path == region)?.TransportId
        ?? throw new CbdException(CbdErrorKind.NotFound, record.Entries.FirstOrDefault(e => e.Transport?.Region == region)?.Transport is { } wanted
            ? $"the transport on '{region}' is not registered yet: see its reason in cbdctrl wait, or register it with tp-reg -H {wanted.Host} -p {region}"
            : $"the transport on '{region}' is not registered, and not wanted any more: register it with tp-reg -p {region}");
}
