using System.Runtime.ExceptionServices;
using Cbd.Host;
using Cbd.Host.Wanted;
using Cbd.Memory;
using Cbd.Protocol;

namespace Cbd.Programs.Daemon.State;

/// <summary>Start verbs: one at a time for each thing, each in its time.</summary>
internal sealed partial class RecordingControl
{
    private const int EndLookMs = 100;

    /// <summary>Longest time of a start for which the request gives none, seconds. To register a transport has no such limit.</summary>
    public int StartTimeoutSeconds { get; init; } = 10;

    /// <summary>A start that gives up by itself at the end of its time has so long to say why, ms; then it is cancelled.</summary>
    public int GiveUpGraceMs { get; init; } = 300;

    /// <summary>A start that was cancelled has so long to end before its verb answers, ms.</summary>
    public int CancelGraceMs { get; init; } = 300;

    /// <summary>
    /// A start in a thread of its own: what hangs in the system does not keep the verb beyond its time, and is taken back when it
    /// answers. Nor does a client that goes away end the start.
    /// </summary>
    private TAnswer StartInTime<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        var given = ((IStartRequest)request).TimeoutSeconds;
        int? seconds = given ?? (request is RegisterTransportOptions ? null : StartTimeoutSeconds);
        var limit = new StartLimit(1000 * seconds, isGiven: given is not null);
        var start = new StartThread<TAnswer>(() => StartAndTell(operation, WithLimit(request, limit), region, wanted, limit));
        if (!IsOver(start, (int)Math.Min((long)limit.LeftMs + GiveUpGraceMs, int.MaxValue), limit) && limit.TryCancel(TooLate(wanted, seconds, limit)) && !start.Wait(CancelGraceMs))
            limit.Check();
        return start.Result;
    }

    private bool IsOver<T>(StartThread<T> start, int timeoutMs, StartLimit limit)
    {
        if (IsEnding is null)
            return start.Wait(timeoutMs);
        var end = Environment.TickCount64 + timeoutMs;
        while (!start.Wait((int)Math.Clamp(end - Environment.TickCount64, 0, EndLookMs)))
        {
            if (IsEnding())
                limit.TryCancel(new CbdException(CbdErrorKind.Failed, "cbdd ends") { MayPass = true });
            if (limit.IsCancelled)
                return false;
            if (Environment.TickCount64 >= end)
                return false;
        }

        return true;
    }

    /// <summary>A start in a thread of its own. Who waits for it needs no other thread.</summary>
    private sealed class StartThread<T>
    {
        private readonly ManualResetEventSlim _isOver = new();
        private T? _answer;
        private ExceptionDispatchInfo? _failure;

        public StartThread(Func<T> start) => NeededThread.Start("cbd-start", () =>
        {
            try
            {
                _answer = start();
            }
            catch (Exception e)
            {
                _failure = ExceptionDispatchInfo.Capture(e);
            }

            _isOver.Set();
        });

        /// <summary>What it answered or threw, when it is over.</summary>
        public T Result
        {
            get
            {
                _isOver.Wait();
                _failure?.Throw();
                return _answer!;
            }
        }

        public bool Wait(int timeoutMs) => _isOver.Wait(timeoutMs);
    }

    private static CbdException TooLate(StateEntry wanted, int? seconds, StartLimit limit)
    {
        var what = wanted.Device is { Name: null } device ? $"a device on backend {device.BackendId}" : $"{wanted}";
        var waits = string.IsNullOrEmpty(limit.Waits) ? "the system has not answered" : limit.Waits;
        return new(CbdErrorKind.TimedOut, $"{what} is not started within {seconds} s, and is taken back: {waits}: see host-list and the log of cbdd, or give a longer --timeout") { MayPass = true };
    }

    private static TRequest WithLimit<TRequest>(TRequest request, StartLimit limit)
        where TRequest : ControlRequest => (TRequest)(object)(request switch
        {
            RegisterTransportOptions options => options with { Limit = limit },
            StartBackendOptions options => options with { Limit = limit },
            StartDeviceOptions options => options with { Limit = limit },
            _ => request as ControlRequest,
        });

    private TAnswer StartAndTell<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted, StartLimit limit)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        try
        {
            return Start(operation, request, region, wanted, limit);
        }
        finally
        {
            // Nobody waits for it any more.
            if (limit.IsCancelled)
                Moved?.Invoke();
        }
    }

    private TAnswer Start<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted, StartLimit limit)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        while (true)
        {
            if (record.FindUnderWay(wanted) is { } other)
            {
                if (Join(other, limit) is { } joined && SameThing.MayHave(joined, request.Caller) && AnswerOf(joined) is TAnswer same)
                    return same;
            }
            else if (Match(wanted, request.Caller) is { } known)
            {
                if (TryStartKnown(operation, request, region, wanted, known, limit) is { } answer)
                    return answer;
            }
            else if (record.BeginStart(wanted, limit) is { } number)
            {
                return StartNew(operation, request, region, number, limit);
            }
        }
    }

    /// <summary>The thing of the record that is asked for, if the caller may have it.</summary>
    private StateEntry? Match(StateEntry wanted, Caller? caller)
    {
        try
        {
            return record.Match(wanted, isRun, _claimed.ContainsKey, caller);
        }
        catch (CbdException e) when (isRun && caller is null && e.Kind == CbdErrorKind.Busy && record.Entries.Any(entry => SameThing.CallerOf(entry) is not null && SameThing.IsOneQueue(entry, wanted)))
        {
            // What a user has put in the place of a line must not keep the daemon from its start, where nobody could stop it.
            throw new CbdException(e.Kind, e.Message, e) { MayPass = true };
        }
    }

    /// <summary>Waits for the verb that is at the thing already. Null if that came to nothing, or was a stop.</summary>
    private StateEntry? Join(StateEntry other, StartLimit limit)
    {
        var what = other.Intent == StateIntent.Starting ? "started" : "stopped";
        limit.Waits = $"another verb has {what} it just now, and has no answer yet";
        if (!record.AwaitVerb(other.Number, limit.LeftMs, limit))
            throw new CbdException(CbdErrorKind.TimedOut, $"{other} is being {what} by another verb: {record.WaitsOf(other.Number) ?? "it takes its time"}: see cbdctrl wait, or give a longer --timeout") { MayPass = true };
        if (other.Intent != StateIntent.Starting || record.Find(other.Number) is not { IsPending: false } started)
            return null;
        _claimed[started.Number] = true;
        return started;
    }

    /// <summary>Starts a thing of the record, or takes it as it is there; null if it is wanted no more, or another attempt has started it.</summary>
    private TAnswer? TryStartKnown<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted, StateEntry known, StartLimit limit)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (!known.IsPending && AnswerOf(known) is TAnswer there)
        {
            record.Claim(known.Number, wanted, isRun);
            _claimed[known.Number] = true;
            return there;
        }

        if (!known.IsPending)
            record.SetPending(known.Number);
        if (!record.TryBeginAttempt(known.Number, limit.LeftMs, limit))
            throw new CbdException(CbdErrorKind.TimedOut, $"{known} is being started: {record.WaitsOf(known.Number) ?? known.Reason ?? "it takes its time"}: see cbdctrl wait, or give a longer --timeout") { MayPass = true };
        try
        {
            // While this waited, it may have been started, or given up.
            if (record.Find(known.Number) is not { IsPending: true } entry)
                return null;
            var asked = As(request, entry);
            var answer = inner.Execute(operation, asked);
            if (!limit.TryFinish() || !record.Confirm(entry.Number, Confirmed(region, entry.Transport is null ? asked : request, answer) with { FromRun = isRun && entry.FromRun == true ? true : null }))
            {
                TakeBack(request, answer);
                limit.Check();
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

    /// <summary>Intent, effect, confirmation: whatever of it fails, nothing of it is left.</summary>
    private TAnswer StartNew<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, int number, StartLimit limit)
        where TRequest : ControlRequest
        where TAnswer : class
    {
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
            if (!limit.TryFinish())
                limit.Check();
            var started = Confirmed(region, request, answer);
            if (!record.ConfirmStart(number, started))
                throw new CbdException(CbdErrorKind.Failed, $"{started} was stopped while it was started");
        }
        catch
        {
            try
            {
                TakeBack(request, answer);
            }
            finally
            {
                record.DropStart(number);
            }

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
            StartBackendOptions options => (TRequest)(object)As(options, entry.Backend!),
            _ => request,
        };

    /// <summary>
    /// A path is a hint: under the name of a backend only its disk is started, whatever path leads to it. An id says that it is the disk.
    /// </summary>
    private StartBackendOptions As(StartBackendOptions options, BackendEntry recorded)
    {
        var asked = options with { Name = options.Name ?? recorded.Name, Backend = options.Backend ?? FindLeft(options, recorded) };
        return options.Name is not null && options.Backend is null && !SameThing.IsSamePath(options.Path, recorded.Path)
            ? asked with { DiskIdentity = options.DiskIdentity ?? recorded.DiskIdentity, IsUnattended = true }
            : asked;
    }

    /// <summary>
    /// A line that formats did so when the record got its region: it is not formatted again, unless it was in memory and a boot took it.
    /// </summary>
    private static RegisterTransportOptions Again(RegisterTransportOptions options, TransportEntry recorded)
    {
        var expecting = Reconciler.Expecting(options, recorded);
        return expecting.Format && recorded.Uuid is not null ? expecting with { Format = false, FormatIfEmpty = true } : expecting;
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

    /// <summary>The error that led here is the one to answer; one of the stop is said.</summary>
    private void TakeBack(ControlRequest request, object answer)
    {
        switch (request, answer)
        {
            case (RegisterTransportOptions options, TransportStarted started):
                record.TakeBack($"transport {started.TransportId} on {options.Path}", () => inner.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = started.TransportId }));
                break;
            case (StartBackendOptions options, BackendStarted started):
                // As if this daemon had died: blkdevs that it was taken over for go on to wait.
                record.TakeBack($"backend {started.BackendId} on {options.Path}", () => inner.Execute(Operations.StopBackend, new StopRequest { Transport = options.Transport, Id = started.BackendId, Leaves = true }));
                break;
            case (StartDeviceOptions options, StartedDevice started):
                record.TakeBack($"device {started.Node}", () => inner.Execute(Operations.StopDevice, new StopRequest { Transport = options.Transport, Id = started.Device, Name = started.Name, Force = true }));
                break;
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
}
