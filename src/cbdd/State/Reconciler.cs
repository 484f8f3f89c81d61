using Cbd.Blocks;
using Cbd.Host.Transports;
using Cbd.Memory;
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

    /// <summary>The next thing is begun after this time: most take less, and ids stay what they were.</summary>
    private const int PatienceMs = 2_000;

    /// <summary>All that is waited for in one pass: what is in the way of one thing must not hold up many.</summary>
    private const int PassMs = 5_000;

    /// <summary>Hosts that wait for each other announce their attempts: this is the least time between two passes that such news begin.</summary>
    private const int NewsMs = 500;

    private readonly Dictionary<int, Task> _attempts = [];
    private readonly AutoResetEvent _moved = new(false);
    private Thread? _thread;
    private volatile bool _isEnding;
    private volatile bool _isTold;

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
        foreach (var number in record.Entries.Where(IsDue).Select(e => e.Number))
        {
            if (isEnding())
                break;
            var isFirst = !_attempts.TryGetValue(number, out var before);
            if (before?.IsCompleted == false)
                continue;
            if (isFirst)
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

        return record.Entries.Count(IsDue);
    }

    private static bool IsDue(StateEntry entry) => entry is { IsPending: true, Intent: null, Held: null, Failed: null };

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

    /// <summary>The request for a recorded transport: on the region that it had, unless that cannot be there any more.</summary>
    internal static RegisterTransportOptions Expecting(RegisterTransportOptions options, TransportEntry recorded)
    {
        // What lies in memory is gone with a boot, and another region in its place is what has to be there.
        if (recorded.Uuid is null || (recorded.BootId != ProcessIdentity.BootId && IsVolatile(recorded.Region)))
            return options with { RegionUuid = null };
        // What is formatted now could not be the region that was there.
        return new RegisterTransportOptions { Host = options.Host, Path = options.Path, Coherence = options.Coherence, RegionUuid = recorded.Uuid };
    }

    /// <summary>A transport as it is recorded once it is registered.</summary>
    internal static StateEntry Confirmed(IControl control, StateEntry wanted, int id) => wanted with
    {
        Transport = wanted.Transport! with
        {
            Uuid = control.Execute(Operations.GetTransport, new TransportTarget { Transport = id }).Uuid,
            BootId = ProcessIdentity.BootId,
        },
    };

    /// <summary>The identity of a disk that outlives its backend's life; null of one that begins anew with each.</summary>
    internal static string? Lasting(string? identity) => identity is { Length: > 0 } && !StartBackendOptions.IsDiskScheme(identity) ? identity : null;

    private static bool IsVolatile(string region)
    {
        try
        {
            return new DriveInfo(Path.GetDirectoryName(region)!).DriveFormat is "tmpfs" or "ramfs" or "hugetlbfs";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return false;
        }
    }

    private void Run()
    {
        var pauseMs = LeastPauseMs;
        var left = int.MaxValue;
        while (!_isEnding)
        {
            var now = Pass(() => _isEnding);
            // It gets on: the rest may be possible now.
            pauseMs = now < left ? LeastPauseMs : Math.Min(2 * pauseMs, MostPauseMs);
            left = now;
            _isTold = false;
            if (!_moved.WaitOne(left > 0 ? pauseMs : record.IsDirty ? MostPauseMs : Timeout.Infinite))
                continue;
            if (_isTold)
                pauseMs = LeastPauseMs;
            else if (!_isEnding && left > 0)
                Thread.Sleep(NewsMs);
        }
    }

    private void Try(int number)
    {
        // A verb that asks for the same is at it already, or this waits for its next turn.
        if (!record.TryBeginAttempt(number, timeoutMs: 0))
            return;
        try
        {
            // What came before may have changed it: a backend has another id now, say.
            if (record.Find(number) is { } entry && IsDue(entry))
                Try(entry);
        }
        finally
        {
            record.EndAttempt(number);
        }
    }

    private void Try(StateEntry entry)
    {
        try
        {
            var (started, what, takeBack) = Start(entry);
            if (record.Confirm(entry.Number, started))
                logger.LogInformation("restored {What}", what);
            else
                takeBack();
        }
        catch (FailedThingException e) when (entry.Device?.Name is { } name)
        {
            record.EndRestore(entry.Number);
            record.SetFailed(name, e.Message);
            logger.LogError("not restored: {What}: {Reason}", entry, e.Message);
        }
        catch (CbdException e)
        {
            record.EndRestore(entry.Number);
            if (record.SetReason(entry.Number, e.Message, isBlocked: e is OtherRegionException))
                logger.LogError("not restored: {What}: {Reason}", entry, e.Message);
        }
        catch (Exception e)
        {
            // A bug of ours, or no thread: the rest goes on.
            logger.LogError(e, "not restored: {What}", entry);
            record.EndRestore(entry.Number);
            record.SetReason(entry.Number, e.Message);
        }
    }

    /// <summary>Starts it: what it is now, in words, and how it is stopped if it is wanted no more.</summary>
    private (StateEntry Started, string What, Action TakeBack) Start(StateEntry entry)
    {
        var confirmed = entry with { IsPending = false, Reason = null, IsBlocked = false, Deaths = null, IsUnclaimed = true };
        if (entry.Transport is { } wanted)
        {
            var options = new RegisterTransportOptions { Host = wanted.Host, Path = wanted.Region, Coherence = wanted.Coherence };
            var id = control.Execute(Operations.RegisterTransport, Expecting(wanted.FormatIfEmpty?.AddTo(options) ?? options, wanted)).TransportId;
            return (Confirmed(control, confirmed, id), $"transport {id} on {wanted.Region}", () => control.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = id }));
        }

        var transport = TransportOf(entry.Region);
        if (entry.Backend is { } backend)
        {
            var (id, path) = StartBackend(transport, backend);
            return (confirmed with { Backend = backend with { BackendId = id, Path = path, DiskIdentity = Lasting(FindBackend(transport, id)?.DiskIdentity) ?? backend.DiskIdentity } },
                $"backend {id} on {path}",
                () => control.Execute(Operations.StopBackend, new StopRequest { Transport = transport, Id = id }));
        }

        var on = BackendOf(transport, entry.Device!);
        var device = StartDevice(transport, entry.Device!, on);
        return (confirmed with { Device = entry.Device! with { BlkdevId = device.Device, Name = device.Name, BackendId = on.BackendId, BackendPath = on.Path, DiskIdentity = on.DiskIdentity } },
            $"device {device.Node}{(device.Note is null ? "" : $": {device.Note}")}",
            () => control.Execute(Operations.StopDevice, new StopRequest { Transport = transport, Id = device.Device, Force = true }));
    }

    private (int Id, string Path) StartBackend(int transport, BackendEntry backend)
    {
        // A record that our killed self left in the region is taken over, so that blkdevs of other hosts go on.
        var left = FindBackend(transport, backend.BackendId);
        var takesOver = left is not null && IsLeft(left, backend.Path);
        // Of a disk without a file the region knows the last size.
        var path = takesOver ? left!.Path : backend.Path;
        var id = control.Execute(Operations.StartBackend, new StartBackendOptions
        {
            Transport = transport,
            Path = path,
            Name = backend.Name,
            DiskIdentity = backend.DiskIdentity,
            IsUnattended = true,
            Handlers = backend.Handlers,
            Backend = takesOver ? backend.BackendId : null,
            ReadOnly = backend.ReadOnly,
            Engine = backend.Engine,
            BlockBytes = backend.BlockSize,
            Mode = PollModeText.Parse(backend.Mode ?? PollModeText.Adaptive),
        }).BackendId;
        return (id, path);
    }

    /// <summary>The backend that has the device's disk now, under whichever id. Throws if none has for certain.</summary>
    private BackendDescription BackendOf(int transport, DeviceEntry device)
    {
        var all = control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true });
        var known = all.FirstOrDefault(b => b.BackendId == device.BackendId);
        if (device.DiskIdentity is not { } identity)
        {
            // Written by a version that did not look: the path is all there is.
            if (known is not null && SameThing.IsSamePath(known.Path, device.BackendPath))
                return known;
        }
        else if (known is not null && SameThing.IsSameDisk(identity, known.DiskIdentity))
        {
            return known;
        }
        else if (all.FirstOrDefault(b => SameThing.IsSameDisk(identity, b.DiskIdentity)) is { } moved)
        {
            return moved;
        }
        else if (known is not null && DiskIdentity.BeginsAnew(identity, known.DiskIdentity))
        {
            throw new FailedThingException($"its disk, backend {known.BackendId} ('{known.Path}'), was in memory and began anew: what was written is gone");
        }

        throw known is null
            ? new CbdException(CbdErrorKind.NotFound, $"there is no backend {device.BackendId} yet: start '{device.BackendPath}' on its host")
            : new CbdException(CbdErrorKind.Invalid,
                $"backend {device.BackendId} is '{known.Path}' ({known.DiskIdentity}) now and was '{device.BackendPath}'{(device.DiskIdentity is null ? "" : $" ({device.DiskIdentity})")}: start that disk on its host, or confirm the other one: dev-stop{(device.Name is null ? "" : $" -d {device.Name}")}, then dev-start");
    }

    private StartedDevice StartDevice(int transport, DeviceEntry device, BackendDescription on) => control.Execute(Operations.StartDevice, new StartDeviceOptions
    {
        Transport = transport,
        Backend = on.BackendId,
        DiskIdentity = on.DiskIdentity.Length > 0 ? on.DiskIdentity : null,
        Name = device.Name,
        Queues = device.Queues,
        Attach = device.Attach,
        Nbd = device.Nbd,
        Tls = device.Tls?.ToOptions(),
        NbdConnections = device.NbdConnections ?? NbdLimits.DefaultConnections,
        NbdHandshakeSeconds = device.NbdHandshakeSeconds ?? NbdLimits.DefaultHandshakeSeconds,
        Insecure = device.Insecure,
        ReadOnly = device.ReadOnly,
        Mode = PollModeText.Parse(device.Mode ?? PollModeText.Adaptive),
        OnBackendLoss = LossText.Parse(device.OnBackendLoss ?? LossText.Queue),
        LossTimeoutSeconds = device.LossTimeout ?? 0,
    });

    /// <summary>A backend that nobody serves, on that disk.</summary>
    public static bool IsLeft(BackendDescription backend, string path) => SameThing.IsSamePath(backend.Path, path) && backend.Alive != "alive";

    private BackendDescription? FindBackend(int transport, int backend) =>
        control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true }).FirstOrDefault(b => b.BackendId == backend);

    private int TransportOf(string region) =>
        control.Execute(Operations.ListTransports, new ControlRequest()).FirstOrDefault(t => t.Path == region)?.TransportId
        ?? throw new CbdException(CbdErrorKind.NotFound, record.Entries.FirstOrDefault(e => e.Transport?.Region == region)?.Transport is { } wanted
            ? $"the transport on '{region}' is not registered yet: see its reason in cbdctrl wait, or register it with tp-reg -H {wanted.Host} -p {region}"
            : $"the transport on '{region}' is not registered, and not wanted any more: register it with tp-reg -p {region}");
}
