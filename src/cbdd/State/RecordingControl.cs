using System.Collections.Concurrent;
using Cbd.Host.Wanted;
using Cbd.Protocol;

namespace Cbd.Programs.Daemon.State;

/// <summary>A gate that keeps in a <see cref="StateRecord"/> what was started and stopped behind it.</summary>
/// <remarks>
/// A start of what the record has already, and what is not there yet or what this run has started by itself, is that thing: it gets
/// its name and id, and no second one is made. Faults are not recorded: a fault is an experiment, and must not come back by itself.
/// </remarks>
internal sealed partial class RecordingControl(IControl inner, StateRecord record, bool isRun = false) : IControl
{
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

    /// <summary>Asked while a start waits: the daemon ends, and the start gives up.</summary>
    public Func<bool>? IsEnding { get; init; }

    /// <summary>Called after each verb that changed something.</summary>
    public Action? Moved { get; init; }

    /// <summary>A stop waits so long for the start that it cancels, ms.</summary>
    public int CancelWaitMs { get; init; } = 10_000;

    /// <summary>A stop waits so long for the record to learn the id of a thing that is there already, ms.</summary>
    public int ConfirmWaitMs { get; init; } = 2_000;

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
            return WithAway(request, inner.Execute(operation, request));
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

    /// <summary>A list, with what is wanted and not there.</summary>
    private TAnswer WithAway<TAnswer>(ControlRequest request, TAnswer answer)
        where TAnswer : class => (TAnswer)(object)(answer switch
        {
            IReadOnlyList<TransportDescription> transports => AwayThings.Add(transports, record),
            IReadOnlyList<BackendDescription> backends => AwayThings.Add(backends, record, On(request)),
            IReadOnlyList<DeviceDescription> devices => AwayThings.Add(devices, record, On(request)),
            _ => answer,
        });

    private TransportDescription On(ControlRequest list) => inner.Execute(Operations.GetTransport, new TransportTarget { Transport = ((TransportTarget)list).Transport });

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
        var answer = Wanted(region, request) is { } wanted ? StartInTime(operation, request, region, wanted)
            : Ended(region, operation, request) is { } ended ? Stop(operation, request, region, ended)
            : inner.Execute(operation, request);
        // The path of a disk without a file says its size.
        if (request is ResizeRequest resize)
            record.SetBackendPath(region, resize.Id, Backend(resize.Transport, resize.Id)?.Path ?? "");
        return answer;
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

    private TAnswer Stop<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, Predicate<StateEntry> ended)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (CancelStart(ended) && StopAnswer.Gone is TAnswer cancelled)
            return cancelled;
        AwaitConfirmation(operation, request, region, ended);
        // A transport that has something on it is refused, which is no stop that a successor may finish.
        IReadOnlyList<int> numbers = operation == (Operation)Operations.UnregisterTransport && record.Entries.Any(e => e.Region == region && e.Transport is null)
            ? []
            : record.BeginStop(ended, request is StopRequest { Force: true });
        // What is begun on the region later is another registration's.
        int[] onRegion = operation == (Operation)Operations.UnregisterTransport ? [.. record.Entries.Where(entry => !entry.IsPending && entry.Region == region).Select(entry => entry.Number)] : [];
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
        record.EndStop([.. numbers, .. onRegion.Except(numbers)]);
        return answer;
    }

    /// <summary>A thing that is there already, and whose start has not told the record its id yet.</summary>
    private void AwaitConfirmation(Operation operation, ControlRequest request, string region, Predicate<StateEntry> ended)
    {
        if (request is not StopRequest stop || record.Entries.Any(entry => ended(entry)))
            return;
        var own = new ListRequest { Transport = stop.Transport };
        var isBackend = operation == Operations.StopBackend;
        if (isBackend ? inner.Execute(Operations.ListBackends, own).Any(b => b.BackendId == stop.Id) : inner.Execute(Operations.ListDevices, own).Any(d => d.BlkdevId == stop.Id))
            record.AwaitConfirmed(ended, entry => entry.Region == region && (isBackend ? entry.Backend is not null : entry.Device is not null), ConfirmWaitMs);
    }

    /// <summary>A verb is starting what is to be stopped: it gives up. True if nothing of it is left.</summary>
    private bool CancelStart(Predicate<StateEntry> ended)
    {
        var starting = record.CancelStarts(entry => entry.Intent == StateIntent.Starting && ended(entry));
        foreach (var number in starting)
            AwaitCancelled(number);
        return starting.Any() && starting.All(number => record.Find(number) is null);
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

    private void Forget(ForgetRequest request)
    {
        if (request.Kind == WantedThing.Transport)
            record.CheckLeave(request.Name);
        var starting = record.CancelStarts(Is);
        if (record.Forget(Is))
            return;
        if (starting.Count == 0)
            throw new CbdException(CbdErrorKind.NotFound, $"no {request.Kind} '{request.Name}' is wanted and away: see {(request.Kind switch { WantedThing.Transport => "tp-list", WantedThing.Backend => "backend-list", _ => "dev-list" })}, and cbdctrl wait");
        foreach (var number in starting)
        {
            AwaitCancelled(number);
            // It was there before it could be cancelled.
            if (record.Find(number) is { } started)
                StopStarted(started);
        }

        bool Is(StateEntry entry) => WantedList.KindOf(entry) == request.Kind && (WantedList.NameOf(entry) == request.Name || entry.Backend?.Name == request.Name);
    }

    private void AwaitCancelled(int number)
    {
        if (!record.AwaitVerb(number, CancelWaitMs) && record.Find(number) is { } entry)
            throw new CbdException(CbdErrorKind.TimedOut, $"{entry} is not wanted any more, and its start has not ended: {record.WaitsOf(number) ?? "it takes its time"}: it is taken back when that ends; see cbdctrl wait");
    }

    private void StopStarted(StateEntry started)
    {
        if (AnswerOf(started) is not { } there || inner.Execute(Operations.ListTransports, new ControlRequest()).FirstOrDefault(t => t.Path == started.Region) is not { } transport)
            return;
        var stop = new StopRequest { Transport = transport.TransportId };
        if (there is BackendStarted backend)
            Record(Operations.StopBackend, stop with { Id = backend.BackendId }).ThrowIfStopping();
        else if (there is StartedDevice device)
            Record(Operations.StopDevice, stop with { Id = device.Device, Name = device.Name }).ThrowIfStopping();
        else
            Record(Operations.UnregisterTransport, new TransportTarget { Transport = transport.TransportId });
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
