using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Cbd.Host;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Programs.Daemon.Upgrading;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// Starts a worker, which is cbdd without --supervise, keeps descriptors for it (<see cref="KeptDescriptors"/>), and starts the next one when it
/// dies. It maps no region and opens no disk, lock or file. All of it is one thread, and a second one that takes signals. What fails in a turn of its loop is
/// logged, and the next turn goes on.
/// </summary>
internal sealed partial class Supervisor : IDisposable
{
    private const ulong NotifyToken = 0;
    private const ulong SignalToken = 1;
    private const ulong WorkerToken = 2;

    /// <summary>Datagrams that are taken in one turn: who is no worker may send any number.</summary>
    private const int TurnOfDatagrams = 64;

    /// <summary>More than a socket's queue may hold.</summary>
    private const int AllDatagrams = 100_000;

    /// <summary>The program of an upgrade is not ready and says nothing for so long: it is taken back, ms.</summary>
    private const int TrialMs = 30_000;

    /// <summary>Refusals that wait for a barrier, characters.</summary>
    private const int MostRefusals = 16_384;

    /// <summary>After a turn that failed, and one more for each further one, milliseconds.</summary>
    private const int FailurePauseMs = 100;
    private const int MostFailurePauseMs = 1_000;

    /// <summary>A sign of life that was not taken is said again after so long.</summary>
    private const int AliveAgainMs = 100;

    private readonly IReadOnlyList<string> _words;
    private readonly WorkerProgram _program;
    private readonly IReadOnlyList<(string Name, FileDescriptor Descriptor)> _activation;
    private readonly Upstream _upstream;
    private readonly ILogger _logger;
    private readonly int _capacity;
    private readonly KeptDescriptors _kept;
    private readonly RestartPauses _pauses = new();
    private readonly ConcurrentQueue<PosixSignal> _signals = new();
    private readonly PollWake _wake = new();
    private readonly EventPoll _poll = new(8);
    private readonly DatagramSocket _socket;
    private readonly string _address;
    private readonly byte[] _buffer = new byte[WorkerMessage.MostBytes];
    private readonly StringBuilder _refusals = new();

    /// <summary>Signals that came before the worker could take them.</summary>
    private readonly List<PosixSignal> _held = [];
    private ChildProcess? _worker;
    private bool _hasHandlers;
    private long? _readyAtMs;
    private long? _startedAtMs;

    /// <summary>The worker's last sign of life; null: it gave none yet, and is not waited for.</summary>
    private long? _aliveAtMs;
    private long _startAtMs;
    private long _trialAtMs;
    private long _sayAliveAtMs;
    private bool _wasAnyReady;
    private bool _wasAnyStarted;
    private bool _isStopping;
    private long _stopAtMs;

    /// <summary>The worker is there to end what is kept, and nothing else: it is told to stop when it is ready.</summary>
    private bool _isGivingUp;
    private int _failures;
    private int _restarts;
    private int? _end;

    /// <param name="program">What the worker is started from; stays the caller's.</param>
    /// <param name="words">The worker's words, the name of the program first.</param>
    /// <param name="activation">Sockets that the service manager opened for the daemon; each worker gets them. They stay the caller's.</param>
    /// <param name="directory">Where the file of its socket is for a moment; strangers must not be able to write there.</param>
    /// <param name="upstream">The service manager of this process; stays the caller's.</param>
    /// <param name="logger">For what happens to workers.</param>
    /// <exception cref="CbdException">The socket cannot be made.</exception>
    public Supervisor(
        WorkerProgram program, IReadOnlyList<string> words, IReadOnlyList<(string Name, FileDescriptor Descriptor)> activation, string directory, Upstream upstream, ILogger logger)
    {
        _program = program;
        _words = words;
        _activation = activation;
        _upstream = upstream;
        _logger = logger;
        _capacity = KeptDescriptors.CapacityOf(ProcessLimits.OpenFiles, activation.Count);
        _kept = new KeptDescriptors(_capacity);
        _socket = DatagramSocket.Bind(directory, out _address);
    }

    /// <summary>Runs until the worker has ended for good. Returns the exit code.</summary>
    /// <exception cref="CbdException">The first worker cannot be started.</exception>
    public int Run()
    {
        _poll.Add(_socket.Descriptor, NotifyToken);
        _poll.Add(_wake, SignalToken);
        Start(restarts: 0);
        while (_end is null)
        {
            try
            {
                Turn();
                _failures = 0;
            }
            catch (Exception e)
            {
                // Workers must not end with their supervisor, whatever it is.
                GoOnAfter(e);
            }
        }

        return _end.Value;
    }

    /// <summary>A signal came. Any thread; never waits.</summary>
    public void Take(PosixSignal signal)
    {
        _signals.Enqueue(signal);
        _wake.Signal();
    }

    public void Dispose()
    {
        _worker?.Dispose();
        _kept.Dispose();
        _poll.Dispose();
        _wake.Dispose();
        _socket.Dispose();
    }

    private void Turn()
    {
        var count = _poll.Wait(TimeoutNs());
        var hasEnded = false;
        for (var i = 0; i < count; i++)
        {
            _ = _poll.GetEvent(i, out var token);
            if (token == SignalToken)
                _wake.Clear();
            hasEnded |= token == WorkerToken;
        }

        Receive(TurnOfDatagrams);
        TakeSignals();
        if (hasEnded)
            TakeEnd();
        Tick();
    }

    private void GoOnAfter(Exception e)
    {
        _failures++;
        try
        {
            _logger.LogError("the supervisor goes on after what must not happen: {Kind}: {Reason}", e.GetType().Name, e.Message);
        }
        catch (Exception)
        {
            // What cannot be logged is not.
        }

        Thread.Sleep(Math.Min(_failures * FailurePauseMs, MostFailurePauseMs));
    }

    private void Start(int restarts)
    {
        var environment = new Dictionary<string, string?>
        {
            ["NOTIFY_SOCKET"] = _address,
            ["FDSTORE"] = _capacity.ToString(CultureInfo.InvariantCulture),
            ["WATCHDOG_USEC"] = _upstream.WatchdogMs is { } limit ? (limit * 1000).ToString(CultureInfo.InvariantCulture) : null,
        };
        environment[SupervisorWords.ProgramVariable] = _program.Path;
        environment[SupervisorWords.RestartsVariable] = restarts.ToString(CultureInfo.InvariantCulture);
        environment[SupervisorWords.FollowedVariable] = _wasAnyStarted ? "1" : null;
        environment[SupervisorWords.FailureVariable] = _program.Failure;
        List<string> numbers = [.. _upstream.WatchdogMs is null ? Array.Empty<string>() : ["WATCHDOG_PID"]];
        IReadOnlyList<FileDescriptor> descriptors = [.. _activation.Select(given => given.Descriptor), .. _kept.Descriptors];
        if (descriptors.Count > 0)
        {
            environment["LISTEN_FDS"] = descriptors.Count.ToString(CultureInfo.InvariantCulture);
            environment["LISTEN_FDNAMES"] = string.Join(':', _activation.Select(given => given.Name).Concat(_kept.Names));
            numbers.Add("LISTEN_PID");
        }

        foreach (var variable in new[] { "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID" })
        {
            if (!numbers.Contains(variable))
                environment.TryAdd(variable, null);
        }

        var worker = ChildProcess.Start(new ChildStart { Program = _program.Descriptor, Words = _words, Environment = environment, ProcessIdVariables = numbers, Descriptors = descriptors });
        try
        {
            _poll.Add(worker.Process.Descriptor, WorkerToken);
        }
        catch
        {
            // Nobody would hear of its end.
            worker.Process.Kill();
            _ = worker.AwaitEnd();
            worker.Dispose();
            throw;
        }

        _worker = worker;
        _program.Started();
        _trialAtMs = MonotonicClock.Milliseconds;
        _hasHandlers = false;
        _readyAtMs = _startedAtMs = _aliveAtMs = null;
        _startAtMs = MonotonicClock.Milliseconds;
    }

    /// <summary>When something is due without an event; -1: nothing is.</summary>
    private long TimeoutNs()
    {
        var due = long.MaxValue;
        if (_worker is null)
            due = _startAtMs;
        if (_program.IsOnTrial)
            due = Math.Min(due, _trialAtMs + TrialMs);
        if (_upstream.WatchdogMs is not null)
            due = Math.Min(due, _sayAliveAtMs);
        return due == long.MaxValue ? -1 : Math.Max(0, due - MonotonicClock.Milliseconds) * 1_000_000;
    }

    private void Tick()
    {
        var now = MonotonicClock.Milliseconds;
        if (_end is null && _worker is null && now >= _startAtMs)
            StartNext();
        if (_worker is not null && _program.IsOnTrial && now - _trialAtMs > TrialMs)
        {
            _logger.LogError("worker {Worker} of the new program is not ready, and has said nothing for {Milliseconds} ms: it is killed", _worker.ProcessId, now - _trialAtMs);
            _trialAtMs = now;
            _worker.Process.Kill();
        }

        if (_upstream.WatchdogMs is not { } limit)
            return;
        if (_worker is not null && _aliveAtMs is { } alive && now - alive > limit)
        {
            _logger.LogError("worker {Worker} did not say that it lives for {Milliseconds} ms: it is killed", _worker.ProcessId, now - alive);
            _worker.Process.Kill();
            _aliveAtMs = now;
        }

        if (now >= _sayAliveAtMs)
            _sayAliveAtMs = now + (_upstream.SayAlive() ? limit / 2 : Math.Min(AliveAgainMs, limit / 2));
    }

    private void StartNext()
    {
        try
        {
            Start(_restarts + 1);
            _restarts++;
            _logger.LogWarning("worker {Worker} was started, restart {Count}, with {Kept} kept descriptors", _worker!.ProcessId, _restarts, _kept.Names.Count);
        }
        catch (Exception e) when (_worker is null)
        {
            if (_program.TryRefuse($"it cannot be started: {e.Message}"))
            {
                _startAtMs = MonotonicClock.Milliseconds;
                _logger.LogError("the new program cannot be started: {Reason}: the old one is started again", e.Message);
                return;
            }

            var pause = _pauses.Died(null);
            _startAtMs = MonotonicClock.Milliseconds + pause;
            if (_isGivingUp)
            {
                _logger.LogError("no worker can be started that would end what is kept: {Reason}", e.Message);
                EndWithRest(ErrorKinds.ExitCode(CbdErrorKind.Failed));
                return;
            }

            _logger.LogError("the next worker cannot be started: {Reason}; it is tried again in {Milliseconds} ms", e.Message, pause);
        }
    }

    /// <summary>Takes datagrams that are there. Only the worker's count, and only its descriptors get into this process.</summary>
    private void Receive(int most)
    {
        var worker = _worker?.ProcessId ?? 0;
        for (var i = 0; i < most && _socket.TryReceiveFrom(worker, _buffer, out var datagram); i++)
        {
            if (worker == 0 || datagram.ProcessId != worker)
                continue;
            // What is kept is taken out of this list.
            var descriptors = datagram.Descriptors.ToList();
            try
            {
                Handle(WorkerMessage.Parse(_buffer.AsSpan(0, datagram.Length)), descriptors);
            }
            finally
            {
                foreach (var descriptor in descriptors)
                    descriptor.Dispose();
            }
        }
    }

    private void Handle(WorkerMessage message, List<FileDescriptor> descriptors)
    {
        if (message.Stores)
            Store(message.Name, descriptors);
        if (message.Removes)
            _kept.Remove(message.Name);
        if (message.IsAlive)
            _aliveAtMs = MonotonicClock.Milliseconds;
        if (message.Status is { } status)
            _upstream.SayStatus(status);
        _hasHandlers |= message.HasHandlers || message.IsReady;
        if (message.IsStarted)
        {
            _startedAtMs ??= MonotonicClock.Milliseconds;
            _wasAnyStarted = true;
        }

        if (message.IsReady && _readyAtMs is null)
        {
            _readyAtMs = MonotonicClock.Milliseconds;
            if (!_wasAnyReady)
                _logger.LogInformation("worker {Worker} is ready; {Capacity} descriptors can be kept for it", _worker!.ProcessId, _capacity);
            _wasAnyReady = true;
            if (_program.TryCommit())
                _logger.LogInformation("worker {Worker} of the new program is ready: the upgrade is done", _worker!.ProcessId);
            _upstream.SayReady();
        }

        // That it lives says nothing of how far it is.
        if (_program.IsOnTrial && !message.IsAlive)
            _trialAtMs = MonotonicClock.Milliseconds;
        if (message.Upgrades && _kept.TryTake(SupervisorWords.NextProgram) is { } next)
        {
            _program.Offer(next);
            Hold(PosixSignal.SIGTERM);
        }

        SendHeld();
        if (!message.IsBarrier)
            return;
        // The descriptors are closed when this returns: that is the answer.
        if (_refusals.Length > 0 && descriptors.Count == 1 && DescriptorKinds.Of(descriptors[0]) == DescriptorKind.Pipe)
        {
            PipeEnds.WriteSome(descriptors[0], Encoding.UTF8.GetBytes(_refusals.ToString()));
            _refusals.Clear();
        }
    }

    private void Store(string name, List<FileDescriptor> descriptors)
    {
        var refused = descriptors.Count != 1 ? "one descriptor, and not another number of them, must come with it"
            : name == SupervisorWords.NextProgram && (_isStopping || _program.IsOnTrial) ? _isStopping ? "the daemon ends" : "another program is just being started"
            : _kept.TryAdd(name, descriptors[0]);
        if (refused is null)
        {
            descriptors.Clear();
            return;
        }

        _logger.LogWarning("the worker's descriptor '{Name}' is not kept: {Reason}", name, refused);
        if (_refusals.Length < MostRefusals)
            _refusals.Append(name).Append(": ").Append(refused).Append('\n');
    }

    private void TakeEnd()
    {
        var worker = _worker!;
        try
        {
            // What it stored before it died was sent before it died.
            Receive(AllDatagrams);
        }
        catch (Exception e)
        {
            GoOnAfter(e);
        }

        var end = AwaitEnd(worker);
        _worker = null;
        _kept.Remove(SupervisorWords.NextProgram);
        _refusals.Clear();
        if (!_isStopping)
            _held.Clear();
        // One that was told to end, and ended by itself, has done so.
        if (_program.TryTakeBack($"it ended with {end} before it was ready") && !(_isStopping && end.ExitCode is { } code && code != SupervisorRules.ParkedExitCode))
        {
            _startAtMs = MonotonicClock.Milliseconds;
            if (_isStopping)
            {
                Hold(ProcessSignals.EndForGood);
                GiveUp();
                return;
            }

            _logger.LogError("worker {Worker} of the new program ended with {End} before it was ready: the old program is started again", worker.ProcessId, end.ToString());
            return;
        }

        switch (SupervisorRules.Decide(end, _isStopping, _wasAnyReady, _wasAnyStarted))
        {
            case AfterEnd.GoOn when _isStopping:
                Hold(ProcessSignals.EndForGood);
                GiveUp();
                break;
            case AfterEnd.GoOn:
                _startAtMs = MonotonicClock.Milliseconds;
                _logger.LogInformation("worker {Worker} left {Count} descriptors to the next one, which is started", worker.ProcessId, _kept.Names.Count);
                break;
            case AfterEnd.EndWithCode:
                EndWithRest(end.ExitCode!.Value);
                break;
            case AfterEnd.EndBySignal:
                SayRest();
                // Returns where that signal cannot be given to oneself, or is ignored.
                // A worker ends by SIGUSR1 where it could not take it yet: what was meant is the end of all.
                if (end.Signal == (int)ProcessSignals.EndForGood)
                    ProcessSignals.EndBy(PosixSignal.SIGTERM);
                ProcessSignals.EndBy(end.Signal!.Value);
                _end = ErrorKinds.ExitCode(CbdErrorKind.Failed);
                break;
            default:
                var now = MonotonicClock.Milliseconds;
                var pause = _pauses.Died(SupervisorRules.ServedMs(end, now - _readyAtMs, now - _startedAtMs));
                _startAtMs = now + pause;
                _logger.LogError("worker {Worker} ended with {End}; the next one is started in {Milliseconds} ms", worker.ProcessId, end.ToString(), pause);
                _upstream.SayStatus($"the worker ended with {end}, and is started again");
                break;
        }
    }

    /// <summary>Takes the end of a worker. One whose end nobody can tell has failed.</summary>
    private ProcessEnd AwaitEnd(ChildProcess worker)
    {
        try
        {
            return worker.AwaitEnd();
        }
        catch (CbdException e)
        {
            _logger.LogError("how worker {Worker} ended is not known: {Reason}", worker.ProcessId, e.Message);
            return new ProcessEnd(ErrorKinds.ExitCode(CbdErrorKind.Failed), null);
        }
        finally
        {
            // Its descriptor leaves the poll with this.
            worker.Dispose();
        }
    }

    private void EndWithRest(int code)
    {
        _end = code;
        SayRest();
    }

    /// <summary>Says what ends with this process though no worker has ended it.</summary>
    private void SayRest()
    {
        if (_kept.Names.Count > 0)
        {
            _logger.LogError(
                "no worker has ended what is kept: {Names}; devices of the kernel are without a server, and their claims stay reserved: start cbdd with the same directories again, which takes or ends them, or clear them with cbdctrl dev-clear on another host",
                string.Join(", ", _kept.Names));
        }
    }
}
