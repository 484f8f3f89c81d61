using System.Collections.Concurrent;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;
using Cbd.Host;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// Starts a worker, which is cbdd without --supervise, keeps descriptors for it (<see cref="KeptDescriptors"/>), and starts the next one when it
/// dies. It maps no region and opens no disk, lock or file. All of it is one thread, and a second one that takes signals.
/// </summary>
internal sealed class Supervisor : IDisposable
{
    private const ulong NotifyToken = 0;
    private const ulong SignalToken = 1;
    private const ulong WorkerToken = 2;

    /// <summary>Datagrams that are taken in one turn: who is no worker may send any number.</summary>
    private const int TurnOfDatagrams = 64;

    /// <summary>More than a socket's queue may hold.</summary>
    private const int AllDatagrams = 100_000;

    /// <summary>Refusals that wait for a barrier, characters.</summary>
    private const int MostRefusals = 16_384;

    private readonly IReadOnlyList<string> _words;
    private readonly FileDescriptor _program;
    private readonly IReadOnlyList<(string Name, FileDescriptor Descriptor)> _activation;
    private readonly Upstream _upstream;
    private readonly ILogger _logger;
    private readonly int _capacity = KeptDescriptors.CapacityOf(ProcessLimits.OpenFiles);
    private readonly KeptDescriptors _kept;
    private readonly RestartPauses _pauses = new();
    private readonly ConcurrentQueue<PosixSignal> _signals = new();
    private readonly PollWake _wake = new();
    private readonly EventPoll _poll = new(8);
    private readonly DatagramSocket _socket;
    private readonly string _address;
    private readonly byte[] _buffer = new byte[WorkerMessage.MostBytes];
    private readonly StringBuilder _refusals = new();
    private ChildProcess? _worker;
    private long? _readyAtMs;
    private long _aliveAtMs;
    private long _startAtMs;
    private bool _wasAnyReady;
    private bool _isStopping;
    private int _restarts;
    private int? _end;

    /// <param name="program">What the worker is started from; stays the caller's.</param>
    /// <param name="words">The worker's words, the name of the program first.</param>
    /// <param name="activation">Sockets that the service manager opened for the daemon; each worker gets them. They stay the caller's.</param>
    /// <param name="upstream">The service manager of this process; stays the caller's.</param>
    /// <param name="logger">For what happens to workers.</param>
    public Supervisor(FileDescriptor program, IReadOnlyList<string> words, IReadOnlyList<(string Name, FileDescriptor Descriptor)> activation, Upstream upstream, ILogger logger)
    {
        _program = program;
        _words = words;
        _activation = activation;
        _upstream = upstream;
        _logger = logger;
        _kept = new KeptDescriptors(_capacity);
        _socket = DatagramSocket.Bind(out _address);
    }

    /// <summary>Runs until the worker has ended for good. Returns the exit code.</summary>
    /// <exception cref="CbdException">The first worker cannot be started.</exception>
    public int Run()
    {
        _poll.Add(_socket.Descriptor, NotifyToken);
        _poll.Add(_wake, SignalToken);
        Start();
        while (_end is null)
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

    private void Start()
    {
        var environment = new Dictionary<string, string?>
        {
            ["NOTIFY_SOCKET"] = _address,
            ["FDSTORE"] = _capacity.ToString(CultureInfo.InvariantCulture),
            ["WATCHDOG_USEC"] = _upstream.WatchdogMs is { } limit ? (limit * 1000).ToString(CultureInfo.InvariantCulture) : null,
        };
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

        _worker = ChildProcess.Start(new ChildStart { Program = _program, Words = _words, Environment = environment, ProcessIdVariables = numbers, Descriptors = descriptors });
        _readyAtMs = null;
        _startAtMs = _aliveAtMs = MonotonicClock.Milliseconds;
        _poll.Add(_worker.Process.Descriptor, WorkerToken);
    }

    /// <summary>When something is due without an event; -1: nothing is.</summary>
    private long TimeoutNs()
    {
        var due = long.MaxValue;
        if (_worker is null)
            due = _startAtMs;
        if (_upstream.WatchdogMs is { } limit)
            due = Math.Min(due, MonotonicClock.Milliseconds + (limit / 2));
        return due == long.MaxValue ? -1 : Math.Max(0, due - MonotonicClock.Milliseconds) * 1_000_000;
    }

    private void Tick()
    {
        var now = MonotonicClock.Milliseconds;
        if (_end is null && _worker is null && now >= _startAtMs)
            StartNext();
        if (_upstream.WatchdogMs is not { } limit)
            return;
        if (_worker is not null && _readyAtMs is not null && now - _aliveAtMs > limit)
        {
            _logger.LogError("worker {Worker} did not say that it lives for {Milliseconds} ms: it is killed", _worker.ProcessId, now - _aliveAtMs);
            _worker.Process.Kill();
            _aliveAtMs = now;
        }

        _upstream.SayAlive();
    }

    private void StartNext()
    {
        try
        {
            Start();
            _restarts++;
            _logger.LogWarning("worker {Worker} was started, restart {Count}, with {Kept} kept descriptors", _worker!.ProcessId, _restarts, _kept.Names.Count);
        }
        catch (CbdException e)
        {
            _worker?.Dispose();
            _worker = null;
            var pause = _pauses.Died(null);
            _startAtMs = MonotonicClock.Milliseconds + pause;
            _logger.LogError("the next worker cannot be started: {Reason}; it is tried again in {Milliseconds} ms", e.Message, pause);
        }
    }

    /// <summary>Takes datagrams that are there. Only the worker's count.</summary>
    private void Receive(int most)
    {
        for (var i = 0; i < most && _socket.TryReceive(_buffer, out var datagram); i++)
        {
            // What is kept is taken out of this list.
            var descriptors = datagram.Descriptors.ToList();
            if (_worker is not null && datagram.ProcessId == _worker.ProcessId)
                Handle(WorkerMessage.Parse(_buffer.AsSpan(0, datagram.Length)), descriptors);
            foreach (var descriptor in descriptors)
                descriptor.Dispose();
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
        if (message.IsReady && _readyAtMs is null)
        {
            _readyAtMs = _aliveAtMs = MonotonicClock.Milliseconds;
            if (!_wasAnyReady)
                _logger.LogInformation("worker {Worker} is ready; {Capacity} descriptors can be kept for it", _worker!.ProcessId, _capacity);
            _wasAnyReady = true;
            _upstream.SayReady();
        }

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
        var refused = descriptors.Count == 1 ? _kept.TryAdd(name, descriptors[0]) : "one descriptor, and not another number of them, must come with it";
        if (refused is null)
        {
            descriptors.Clear();
            return;
        }

        _logger.LogWarning("the worker's descriptor '{Name}' is not kept: {Reason}", name, refused);
        if (_refusals.Length < MostRefusals)
            _refusals.Append(name).Append(": ").Append(refused).Append('\n');
    }

    private void TakeSignals()
    {
        while (_signals.TryDequeue(out var signal))
        {
            if (signal is PosixSignal.SIGTERM or PosixSignal.SIGINT or ProcessSignals.EndForGood)
            {
                if (!_isStopping)
                    _upstream.SayStopping();
                _isStopping = true;
                if (_worker is null)
                    _end = ErrorKinds.ExitSuccess;
            }

            // SIGTERM asks a worker to leave all to the next one: there is none. SIGINT is ignored by what was started in the background.
            _worker?.Process.Send(signal is PosixSignal.SIGTERM or PosixSignal.SIGINT ? ProcessSignals.EndForGood : signal);
        }
    }

    private void TakeEnd()
    {
        // What it stored before it died was sent before it died.
        Receive(AllDatagrams);
        var worker = _worker!;
        _poll.Remove(worker.Process.Descriptor);
        var end = worker.AwaitEnd();
        worker.Dispose();
        _worker = null;
        _refusals.Clear();
        switch (SupervisorRules.Decide(end, _isStopping, _wasAnyReady))
        {
            case AfterEnd.EndWithCode:
                _end = end.ExitCode!.Value;
                break;
            case AfterEnd.EndBySignal:
                // Returns where that signal cannot be given to oneself, or is ignored.
                ProcessSignals.EndBy(end.Signal!.Value);
                _end = ErrorKinds.ExitCode(CbdErrorKind.Failed);
                break;
            default:
                var now = MonotonicClock.Milliseconds;
                var pause = _pauses.Died(now - _readyAtMs);
                _startAtMs = now + pause;
                _logger.LogError("worker {Worker} ended with {End}; the next one is started in {Milliseconds} ms", worker.ProcessId, end.ToString(), pause);
                _upstream.SayStatus($"the worker ended with {end}, and is started again");
                break;
        }
    }
}
