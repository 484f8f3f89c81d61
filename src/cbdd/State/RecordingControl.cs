using System.Collections.Concurrent;
using Cbd.Host.Wanted;
using Cbd.Protocol;

namespace Cbd.Programs.Daemon.State;

/// <summary>A gate that keeps in a <see cref="StateRecord"/> what was started and stopped behind it.</summary>
/// <remarks>
/// A start of what the record has already, and what is not there yet or what this run has started by itself, is that thing: it gets
/// its name and id, and no second one is made. Faults are not recorded: a fault is an experiment, and must not come back by itself.
/// </remarks>
internal sealed class RecordingControl(IControl inner, StateRecord record, bool isRun = false) : IControl
{
    /// <summary>How long a start waits for another attempt at the same thing.</summary>
    private const int JoinMs = 10_000;

    private readonly WantedList _wanted = new(inner, record);

    /// <summary>Entries that a line of this run has asked for.</summary>
    private readonly ConcurrentDictionary<int, bool> _claimed = [];
    private volatile bool _isStarting;

    private static readonly HashSet<Operation> s_recorded =
    [
        Operations.RegisterTransport, Operations.UnregisterTransport, Operations.StartBackend, Operations.StopBackend,
        Operations.ResizeBackend, Operations.StartDevice, Operations.StopDevice,
    ];

    /// <summary>The daemon still does what it was told at its start.</summary>
    public bool IsStarting
    {
        get => _isStarting;
        set => _isStarting = value;
    }

    /// <summary>The line of this run that waits, and why; null while none does.</summary>
    public WantedThing? WaitingLine { get; set; }

    /// <summary>Called after each verb that changed something.</summary>
    public Action? Moved { get; init; }

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (operation == (Operation)Operations.ListWanted)
        {
            IReadOnlyList<WantedThing> things = _wanted.Describe();
            return (TAnswer)(object)new WantedThings { Starting = IsStarting, Things = WaitingLine is { } line ? [.. things, line] : things };
        }

        if (isRun)
            RefuseWordsOfTheMoment(request);
        if (request is not ForgetRequest && !s_recorded.Contains(operation))
            return inner.Execute(operation, request);
        try
        {
            return Record(operation, request);
        }
        finally
        {
            // Also after what came to nothing: it may have reserved a name.
            Moved?.Invoke();
        }
    }

    private TAnswer Record<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (request is ForgetRequest forget)
        {
            Forget(forget);
            return (TAnswer)(object)Done.Instance;
        }

        // After tp-unreg nobody knows any more which region it was.
        var region = RegionOf(request);
        if (operation == (Operation)Operations.UnregisterTransport)
            record.CheckLeave(region);
        var answer = Wanted(region, request) is { } wanted ? Start(operation, request, region, wanted)
            : Ended(region, operation, request) is { } ended ? Stop(operation, request, region, ended)
            : inner.Execute(operation, request);
        // The path of a disk without a file says its size.
        if (request is ResizeRequest resize)
            record.SetBackendPath(region, resize.Id, Backend(resize.Transport, resize.Id)?.Path ?? "");
        return answer;
    }

    private TAnswer Start<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        while (record.Match(wanted, isRun, _claimed.ContainsKey) is { } known && SameThing.MayHave(known, request.Caller))
        {
            if (!known.IsPending && AnswerOf(known) is TAnswer there)
            {
                record.Claim(known.Number, wanted, isRun);
                _claimed[known.Number] = true;
                return there;
            }

            if (!known.IsPending)
                record.SetPending(known.Number);
            if (!record.TryBeginAttempt(known.Number, JoinMs))
                throw new CbdException(CbdErrorKind.TimedOut, $"{known} is being started: {known.Reason ?? "it takes its time"}: see cbdctrl wait") { MayPass = true };
            try
            {
                // While this waited, it may have been started, or given up.
                if (record.Find(known.Number) is not { IsPending: true } entry)
                    continue;
                var asked = As(request, entry);
                var answer = inner.Execute(operation, asked);
                if (!record.Confirm(entry.Number, Confirmed(region, entry.Transport is null ? asked : request, answer) with { FromRun = isRun && entry.FromRun == true ? true : null }))
                {
                    TakeBack(request, answer);
                    throw new CbdException(CbdErrorKind.Failed, $"{entry} was stopped while it was started");
                }

                _claimed[entry.Number] = true;
                return answer;
            }
            finally
            {
                record.EndAttempt(known.Number);
            }
        }

        return StartNew(operation, request, region, wanted);
    }

    /// <summary>Intent, effect, confirmation: whatever of it fails, nothing of it is left.</summary>
    private TAnswer StartNew<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        var number = record.BeginStart(wanted);
        TAnswer answer;
        try
        {
            answer = inner.Execute(operation, request);
        }
        catch
        {
            record.DropStart(number);
            throw;
        }

        try
        {
            record.ConfirmStart(number, Confirmed(region, request, answer));
        }
        catch
        {
            TakeBack(request, answer);
            record.DropStart(number);
            throw;
        }

        _claimed[number] = true;
        return answer;
    }

    /// <summary>The request, for the thing that the record has.</summary>
    private TRequest As<TRequest>(TRequest request, StateEntry entry)
        where TRequest : ControlRequest => request switch
        {
            // A verb confirms whatever is there; a line of this run was written before.
            RegisterTransportOptions options when isRun => (TRequest)(object)Again(options, entry.Transport!),
            StartDeviceOptions options => (TRequest)(object)(options with { Name = entry.Device!.Name, DiskIdentity = options.DiskIdentity ?? entry.Device.DiskIdentity }),
            StartBackendOptions options => (TRequest)(object)(options with { Name = options.Name ?? entry.Backend!.Name, Backend = options.Backend ?? FindLeft(options, entry.Backend!) }),
            _ => request,
        };

    /// <summary>
    /// A line that formats did so when the record got its region: it is not formatted again, unless it was in memory and a boot took it.
    /// </summary>
    private static RegisterTransportOptions Again(RegisterTransportOptions options, TransportEntry recorded)
    {
        var expecting = Reconciler.Expecting(options, recorded);
        return expecting.Format && recorded.Uuid is not null ? expecting with { Format = false, FormatIfEmpty = true } : expecting;
    }

    /// <summary>Words of the moment: said again at each start of a daemon, nobody would stand behind them.</summary>
    private static void RefuseWordsOfTheMoment(ControlRequest request)
    {
        var word = request switch
        {
            RegisterTransportOptions { Force: true } or StopRequest { Force: true } or ClearRequest { Force: true } => "--force",
            StartBackendOptions { Fenced: true } or ClearRequest { Fenced: true } => "--fenced",
            _ => null,
        };
        if (word is not null)
            throw Rules.Invalid($"{word} cannot be in a --run line, which is done again at each start: leave it out, and do that verb with cbdctrl");
    }

    /// <summary>What a start of a thing that is there answers; null if it is not there after all.</summary>
    private object? AnswerOf(StateEntry entry)
    {
        var transport = inner.Execute(Operations.ListTransports, new ControlRequest()).FirstOrDefault(t => t.Path == entry.Region);
        if (transport is null)
            return null;
        if (entry.Transport is not null)
            return new TransportStarted { TransportId = transport.TransportId };
        if (entry.Backend is { } backend)
        {
            return inner.Execute(Operations.ListBackends, new ListRequest { Transport = transport.TransportId }).Any(b => b.BackendId == backend.BackendId)
                ? new BackendStarted { BackendId = backend.BackendId }
                : null;
        }

        return inner.Execute(Operations.ListDevices, new ListRequest { Transport = transport.TransportId }).FirstOrDefault(d => d.Name == entry.Device!.Name) is { } device
            ? new StartedDevice(device.BlkdevId, device.Address, Name: device.Name)
            : null;
    }

    private TAnswer Stop<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, Predicate<StateEntry> ended)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        // A transport that has something on it is refused, which is no stop that a successor may finish.
        IReadOnlyList<int> numbers = operation == (Operation)Operations.UnregisterTransport && record.Entries.Any(e => e.Region == region && e.Transport is null)
            ? []
            : record.BeginStop(ended);
        TAnswer answer;
        try
        {
            answer = inner.Execute(operation, request);
        }
        catch (CbdException e) when (e.Kind == CbdErrorKind.NotFound && request is StopRequest { Name: null })
        {
            // It could not be started again, and is wanted no more.
            if (numbers.Count == 0)
                throw;
            record.EndStop(numbers);
            return (TAnswer)(object)StopAnswer.Gone;
        }
        catch
        {
            record.CancelStop(numbers);
            throw;
        }

        // A thing that is still stopping is not wanted any more either; a transport is left without anything on it.
        if (operation == (Operation)Operations.UnregisterTransport)
            numbers = [.. numbers, .. record.Entries.Where(entry => !entry.IsPending && entry.Region == region).Select(entry => entry.Number)];
        record.EndStop(numbers);
        return answer;
    }

    /// <summary>What a start verb wants; null if it is none.</summary>
    private StateEntry? Wanted(string region, ControlRequest request) => request switch
    {
        RegisterTransportOptions options => Marked(new StateEntry
        {
            Transport = new TransportEntry { Region = region, Host = options.Host, Coherence = options.Coherence, Caller = options.Caller, FormatIfEmpty = FormatEntry.From(options) },
        }),
        StartBackendOptions options => Marked(new StateEntry { Backend = Entry(region, options, options.Backend ?? -1, null) }),
        StartDeviceOptions options => Marked(new StateEntry { Device = Entry(region, options, -1, options.Name) }),
        _ => null,
    };

    private StateEntry Marked(StateEntry entry) => entry with { FromRun = isRun ? true : null };

    private StateEntry Confirmed(string region, ControlRequest request, object answer) => (request, answer) switch
    {
        (RegisterTransportOptions, TransportStarted started) => Reconciler.Confirmed(inner, Wanted(region, request)!, started.TransportId),
        (StartBackendOptions options, BackendStarted started) => Marked(new StateEntry
        {
            Backend = Entry(region, options, started.BackendId, WantedRules<SafePolicy>.Lasting(Backend(options.Transport, started.BackendId)?.DiskIdentity)),
        }),
        (StartDeviceOptions options, StartedDevice started) => Marked(new StateEntry { Device = Entry(region, options, started.Device, started.Name) }),
        _ => Wanted(region, request)!,
    };

    /// <summary>
    /// What a stop verb ends; null if it is none. Also what is just being started from the record, and is there before the record has its
    /// id: by its name or path.
    /// </summary>
    private Predicate<StateEntry>? Ended(string region, Operation operation, ControlRequest request)
    {
        if (request is StopRequest stop && operation == Operations.StopBackend)
        {
            var path = inner.Execute(Operations.ListBackends, new ListRequest { Transport = stop.Transport }).FirstOrDefault(b => b.BackendId == stop.Id)?.Path;
            return entry => entry.Region == region && entry.Backend is { } backend && (path is null || !entry.IsPending ? backend.BackendId == stop.Id : backend.Path == path);
        }

        if (request is StopRequest device)
        {
            var name = inner.Execute(Operations.ListDevices, new ListRequest { Transport = device.Transport }).FirstOrDefault(d => d.BlkdevId == device.Id)?.Name;
            return entry => entry.Region == region && entry.Device is { } d && (entry.IsPending ? d.Name == name && name is not null : d.BlkdevId == device.Id);
        }

        return request is TransportTarget && operation == Operations.UnregisterTransport ? entry => entry.Region == region && entry.Transport is not null : null;
    }

    private void TakeBack(ControlRequest request, object answer)
    {
        try
        {
            switch (request, answer)
            {
                case (_, TransportStarted started):
                    inner.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = started.TransportId });
                    break;
                case (StartBackendOptions options, BackendStarted started):
                    inner.Execute(Operations.StopBackend, new StopRequest { Transport = options.Transport, Id = started.BackendId });
                    break;
                case (StartDeviceOptions options, StartedDevice started):
                    inner.Execute(Operations.StopDevice, new StopRequest { Transport = options.Transport, Id = started.Device, Force = true });
                    break;
            }
        }
        catch (CbdException)
        {
            // The error that led here is the one to tell.
        }
    }

    /// <summary>
    /// The id under which the record has this disk, if its entry in the region is there and nobody serves it: blkdevs that wait for
    /// it go on.
    /// </summary>
    private int? FindLeft(StartBackendOptions start, BackendEntry wanted)
    {
        // Of a file or a block device the region itself knows whether it is the same.
        if (!StartBackendOptions.IsDiskScheme(start.Path))
            return null;
        return WantedRules<SafePolicy>.FindLeft(
            wanted with { Path = start.Path }, Reconciler.Offered(inner.Execute(Operations.ListBackends, new ListRequest { Transport = start.Transport, All = true })))?.Id;
    }

    private void Forget(ForgetRequest request)
    {
        if (request.Kind == WantedThing.Transport)
            record.CheckLeave(request.Name);
        if (!record.Forget(entry => WantedList.KindOf(entry) == request.Kind && (WantedList.NameOf(entry) == request.Name || entry.Backend?.Name == request.Name)))
            throw new CbdException(CbdErrorKind.NotFound, $"no {request.Kind} '{request.Name}' is wanted and away: see {(request.Kind switch { WantedThing.Transport => "tp-list", WantedThing.Backend => "backend-list", _ => "dev-list" })}, and cbdctrl wait");
    }

    private static BackendEntry Entry(string region, StartBackendOptions options, int id, string? identity) => new()
    {
        Region = region,
        BackendId = id,
        Name = options.Name,
        Path = options.Path,
        Caller = options.Caller,
        DiskIdentity = identity,
        Handlers = options.Handlers,
        ReadOnly = options.ReadOnly,
        Engine = options.Engine,
        BlockSize = options.BlockBytes,
        Mode = PollModeText.OfOther(options.Mode),
    };

    private DeviceEntry Entry(string region, StartDeviceOptions options, int id, string? name) => Entry(region, options, id, name, Backend(options.Transport, options.Backend));

    // Without the backend, which went in this moment, a restore refuses the device rather than guess.
    private static DeviceEntry Entry(string region, StartDeviceOptions options, int id, string? name, BackendDescription? backend) => new()
    {
        Region = region,
        BlkdevId = id,
        Name = name,
        BackendId = options.Backend,
        BackendPath = backend?.Path ?? "",
        DiskIdentity = backend?.DiskIdentity is { Length: > 0 } identity ? identity : null,
        Queues = options.Queues,
        Attach = options.Attach,
        Caller = options.Caller,
        Nbd = options.Nbd,
        Tls = TlsEntry.From(options.Tls),
        NbdConnections = Other(options.NbdConnections, NbdLimits.DefaultConnections),
        NbdHandshakeSeconds = Other(options.NbdHandshakeSeconds, NbdLimits.DefaultHandshakeSeconds),
        Insecure = options.Insecure,
        ReadOnly = options.ReadOnly,
        Mode = PollModeText.OfOther(options.Mode),
        OnBackendLoss = options.OnBackendLoss == OnBackendLoss.Queue ? null : LossText.Of(options.OnBackendLoss),
        LossTimeout = Other(options.LossTimeoutSeconds, 0),
    };

    private static int? Other(int value, int usual) => value == usual ? null : value;

    private string RegionOf(ControlRequest request) => request switch
    {
        RegisterTransportOptions options => options.Path,
        TransportTarget target => inner.Execute(Operations.GetTransport, new TransportTarget { Transport = target.Transport }).Path,
        _ => throw new InvalidOperationException($"{request} is about no transport and is recorded"),
    };

    private BackendDescription? Backend(int transport, int backend)
    {
        try
        {
            return inner.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true }).FirstOrDefault(b => b.BackendId == backend);
        }
        catch (CbdException)
        {
            return null;
        }
    }
}
