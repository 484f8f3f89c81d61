using System.Diagnostics;
using System.Runtime.InteropServices;
using Cbd.Control.Verbs;
using Cbd.Disks;
using Cbd.Host.Wanted;
using Cbd.Programs.Daemon;
using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Cbd.Tests.Host;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Start verbs end in time, join each other, and end when the thing is stopped.</summary>
public sealed class StartsOfADaemon : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly WrittenLog _log = new();
    private readonly ILogger _logger;
    private readonly ListedNode _node = new();
    private readonly ManualResetEventSlim _begun = new();
    private readonly ManualResetEventSlim _goOn = new();
    private readonly StateRecord _record;
    private readonly RecordingControl _daemon;

    /// <summary>What a start does before it is done: it hangs until it is told to go on, by default.</summary>
    private Action<IStartRequest> _hangs;

    public StartsOfADaemon()
    {
        _logger = _log.CreateLogger("cbdd");
        _hangs = _ =>
        {
            _begun.Set();
            _goOn.Wait();
        };
        _record = NextRecord();
        _daemon = PatientDaemon.Control(Hanging(), _record);
        _node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
    }

    public void Dispose()
    {
        _goOn.Set();
        Eventually.True(() => _record.Entries.All(e => e.Intent is null));
        _begun.Dispose();
        _directory.Dispose();
    }

    private StateRecord NextRecord()
    {
        var file = new StateFile(_directory.Path);
        return new StateRecord(file, _logger, file.Read());
    }

    private InterceptedControl Hanging() => new(_node, request =>
    {
        if (request is StartBackendOptions { Path: "/dev/sda" } or StartDeviceOptions { Name: "data" })
            _hangs((IStartRequest)request);
        return request;
    });

    private static Task<T> Run<T>(Func<T> verb) => Task.Factory.StartNew(verb, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private int Start(int timeout = PatientDaemon.LongSeconds, RecordingControl? daemon = null) =>
        (daemon ?? _daemon).Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", TimeoutSeconds = timeout }).BackendId;

    private IEnumerable<string> Served() => _node.Execute(Operations.ListBackends, new ListRequest()).Select(b => b.Path);

    [Fact]
    public void End_in_time_although_the_system_hangs_and_are_taken_back_when_it_answers()
    {
        // It returns, although the start has not been told to go on.
        CbdException late = Assert.Throws<CbdException>(() => Start(timeout: 1, new RecordingControl(Hanging(), _record)));
        Assert.Equal((CbdErrorKind.TimedOut, true), (late.Kind, late.MayPass));
        Assert.Equal("backend on /dev/sda is not started within 1 s, and is taken back: the system has not answered: see host-list and the log of cbdd, or give a longer --timeout", late.Message);
        // Nobody was told that it is there: the next life has nothing of it.
        Assert.Empty(NextRecord().Entries);
        _begun.Wait(TestContext.Current.CancellationToken);
        WantedThing going = Assert.Single(new WantedList(_node, _record).Describe());
        Assert.Equal((WantedThing.Waiting, "it is being started"), (going.State, going.Reason));
        _goOn.Set();
        Eventually.True(() => _record.Entries.Count == 0);
        Assert.Empty(Served());
        Assert.Contains("leave backend 0 0", _node.Calls);
    }

    [Fact]
    public void End_at_their_next_step_and_say_what_they_waited_for()
    {
        _hangs = start =>
        {
            start.Limit!.Check("the old session lives");
            _begun.Set();
            Step(start);
        };
        var daemon = new RecordingControl(Hanging(), _record)
        {
            CancelGraceMs = 1000 * PatientDaemon.LongSeconds,
            // It is asked before the start is cancelled, which therefore waits for its first step.
            IsEnding = () =>
            {
                _begun.Wait();
                return false;
            },
        };
        CbdException late = Assert.Throws<CbdException>(() => Start(timeout: 1, daemon));
        Assert.Contains("is not started within 1 s, and is taken back: the old session lives: see", late.Message, StringComparison.Ordinal);
        Assert.Empty(_record.Entries);
        Assert.DoesNotContain(_node.Calls, call => call.StartsWith("stop", StringComparison.Ordinal));
    }

    private static void Step(IStartRequest start)
    {
        while (true)
        {
            start.Limit!.Check("the old session lives");
            Thread.Sleep(5);
        }
    }

    [Fact]
    public void End_when_the_thing_is_stopped()
    {
        _hangs = Step;
        Task<CbdException> start = Run(() => Assert.Throws<CbdException>(() => Start()));
        Eventually.True(() => _record.Entries.Count == 1);
        _daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = "/dev/sda" });
        Assert.Empty(_record.Entries);
        CbdException stopped = Eventually.Result(start);
        Assert.Equal((CbdErrorKind.Failed, "backend on /dev/sda was stopped while it was started"), (stopped.Kind, stopped.Message));
        Assert.Empty(Served());
    }

    [Fact]
    public void End_when_the_entry_that_they_take_over_is_stopped_by_its_id()
    {
        _hangs = Step;
        Task<CbdException> start = Run(() => Assert.Throws<CbdException>(() => _daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Backend = 5 })));
        Eventually.True(() => _record.Entries.Count == 1);
        Assert.Equal(StopAnswer.Gone, _daemon.Execute(Operations.StopBackend, new StopRequest { Id = 5 }));
        Assert.EndsWith("was stopped while it was started", Eventually.Result(start).Message, StringComparison.Ordinal);
        Assert.Empty(_record.Entries);
    }

    [Fact]
    public void Of_a_restore_end_at_once_when_the_thing_is_stopped()
    {
        _goOn.Set();
        Start();
        bool hasEnded = false;
        _hangs = start =>
        {
            try
            {
                Step(start);
            }
            finally
            {
                Volatile.Write(ref hasEnded, true);
            }
        };
        StateRecord record = NextRecord();
        _node.Execute(Operations.StopBackend, new StopRequest { Id = 0 });
        using var reconciler = PatientDaemon.Reconciler(Hanging(), record, _logger);
        reconciler.Start();
        Eventually.True(() => record.WaitsOf(record.Entries[0].Number) is not null);
        PatientDaemon.Control(_node, record).Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = "/dev/sda" });
        Assert.Empty(NextRecord().Entries);
        Eventually.True(() => Volatile.Read(ref hasEnded));
        Assert.Empty(Served());
    }

    [Fact]
    public void Of_the_same_thing_join()
    {
        Task<int> first = Run(() => Start());
        _begun.Wait(TestContext.Current.CancellationToken);
        Task<int> second = Run(() => Start());
        CbdException late = Assert.Throws<CbdException>(() => Start(timeout: 1));
        Assert.StartsWith("backend on /dev/sda is being started by another verb: it takes its time: see cbdctrl wait", late.Message, StringComparison.Ordinal);
        Eventually.True(() => _record.WaiterCount == 1);
        Assert.False(second.IsCompleted);
        _goOn.Set();
        Assert.Equal(Eventually.Result(first), Eventually.Result(second));
        Assert.Single(Served());
        Assert.Single(_record.Entries);
        // Afterwards it is a second backend on a disk, which the host refuses.
        _node.Failure = new CbdException(CbdErrorKind.Busy, "in use");
        Assert.Throws<CbdException>(() => Start());
    }

    [Fact]
    public void Of_another_thing_under_the_name_are_refused()
    {
        _node.AddForeignBackend(0, 7, "/dev/sdq", "alive");
        _node.AddForeignBackend(0, 8, "/dev/sdr", "alive");
        Task<string?> first = Run(() => _daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 7, Name = "data" }).Name);
        _begun.Wait(TestContext.Current.CancellationToken);
        CbdException refused = Assert.Throws<CbdException>(() => _daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 8, Name = "data" }));
        Assert.StartsWith("device data is wanted already, and not the same: it is on backend 7", refused.Message, StringComparison.Ordinal);
        _goOn.Set();
        Assert.Equal("data", Eventually.Result(first));
    }

    [Fact]
    public void Wait_for_a_stop_of_the_same_thing_that_is_under_way()
    {
        _goOn.Set();
        int backend = Start();
        using var stopping = new ManualResetEventSlim();
        using var stopped = new ManualResetEventSlim();
        var daemon = PatientDaemon.Control(new InterceptedControl(_node, request =>
        {
            if (request is StopRequest)
            {
                stopping.Set();
                stopped.Wait();
            }

            return request;
        }), _record);
        Task<StopAnswer> stop = Run(() => daemon.Execute(Operations.StopBackend, new StopRequest { Id = backend }));
        stopping.Wait(TestContext.Current.CancellationToken);
        Task<int> start = Run(() => Start());
        CbdException late = Assert.Throws<CbdException>(() => Start(timeout: 1));
        Assert.StartsWith("backend on /dev/sda is being stopped by another verb: it takes its time: see cbdctrl wait", late.Message, StringComparison.Ordinal);
        Eventually.True(() => _record.WaiterCount == 1);
        Assert.False(start.IsCompleted);
        stopped.Set();
        Assert.Equal(StopAnswer.Gone, Eventually.Result(stop));
        Eventually.Result(start);
        Assert.Single(Served());
        Assert.Single(NextRecord().Entries);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(86401)]
    public void Have_a_time_that_can_be(int seconds)
    {
        string expected = $"the timeout in seconds is {seconds}; it must be 1 to 86400";
        Assert.Equal(expected, Assert.Throws<CbdException>(() => Operations.StartBackend.Check(new StartBackendOptions { Path = "/d", TimeoutSeconds = seconds })).Message);
        Assert.Equal(expected, Assert.Throws<CbdException>(() => Operations.StartDevice.Check(new StartDeviceOptions { Backend = 0, TimeoutSeconds = seconds })).Message);
        Assert.Equal(expected, Assert.Throws<CbdException>(() => Operations.RegisterTransport.Check(new RegisterTransportOptions { Host = "a", Path = "/r", TimeoutSeconds = seconds })).Message);
    }
}

/// <summary>The same on a host that serves disks.</summary>
public sealed class StartsOnALockedDisk : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly WrittenLog _log = new();
    private readonly TestNode _node;
    private readonly StateRecord _record;
    private readonly RecordingControl _daemon;

    public StartsOnALockedDisk()
    {
        _node = new TestNode(_directory.Path, "alpha");
        _node.Register(_directory.File("region"), format: true);
        File.WriteAllBytes(FilePath, new byte[1 << 20]);
        _record = new StateRecord(new StateFile(_directory.Path), _log.CreateLogger("cbdd"), []);
        _daemon = PatientDaemon.Control(_node.Node, _record);
    }

    private string FilePath => _directory.File("disk");

    public void Dispose()
    {
        _node.Dispose();
        _directory.Dispose();
    }

    private int Start(int timeout = PatientDaemon.LongSeconds, int? backend = null) =>
        _daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = FilePath, TimeoutSeconds = timeout, Backend = backend }).BackendId;

    /// <summary>A record of the disk, which a start with its id waits ten seconds for.</summary>
    private int LeaveARecord()
    {
        int backend = _node.StartBackend(FilePath);
        _node.StartDevice(backend);
        _node.Node.StopBackend(0, backend, force: true);
        return backend;
    }

    [Fact]
    public void End_with_the_holder_at_their_time()
    {
        int backend = LeaveARecord();
        using Disk held = Disk.Open(new DiskOptions { Path = FilePath });
        var watch = Stopwatch.StartNew();
        CbdException busy = Assert.Throws<CbdException>(() => Start(timeout: 1, backend));
        Assert.True(watch.Elapsed.TotalSeconds > 0.9, $"{watch.Elapsed}");
        Assert.Contains($"{FilePath} is already in use", busy.Message, StringComparison.Ordinal);
        Assert.Empty(_record.Entries);
    }

    /// <summary>A device that waits for the disk, which nobody serves.</summary>
    private int LeaveWithADevice()
    {
        int backend = _node.StartBackend(FilePath);
        _node.StartDevice(backend);
        _node.Node.LeaveBackend(0, backend);
        Eventually.True(() => StateOfDevice() == "waiting");
        return backend;
    }

    private string StateOfDevice() => Assert.Single(_node.Node.Execute(Operations.ListDevices, new ListRequest())).State;

    private void AssertLeft(int backend)
    {
        BackendDescription left = Assert.Single(_node.Node.Execute(Operations.ListBackends, new ListRequest { All = true }));
        Assert.Equal((backend, "orphaned", false), (left.BackendId, left.State, left.IsStopped));
        Eventually.True(() => StateOfDevice() == "waiting");
        Assert.Equal(backend, Start());
        Eventually.True(() => StateOfDevice() == "running");
    }

    [Fact]
    public void Leave_what_they_took_over_as_if_the_daemon_had_died_when_they_are_taken_back()
    {
        int backend = LeaveWithADevice();
        var daemon = PatientDaemon.Control(new InterceptedControl(_node.Node, request => request, after: request =>
        {
            if (request is StartBackendOptions start)
                Assert.True(start.Limit!.TryCancel(new CbdException(CbdErrorKind.TimedOut, "too late")));
        }), _record);
        Assert.Equal("too late", Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = FilePath, TimeoutSeconds = PatientDaemon.LongSeconds })).Message);
        Assert.Empty(_record.Entries);
        AssertLeft(backend);
    }

    [Fact]
    public void Of_a_restore_leave_what_they_took_over_as_if_the_daemon_had_died_when_it_is_wanted_no_more()
    {
        Start();
        IReadOnlyList<StateEntry> wanted = _record.Entries;
        _daemon.Execute(Operations.StopBackend, new StopRequest());
        int backend = LeaveWithADevice();
        var record = new StateRecord(new StateFile(_directory.Path), _log.CreateLogger("cbdd"), wanted);
        bool isStarted = false;
        using var reconciler = PatientDaemon.Reconciler(new InterceptedControl(_node.Node, request => request, after: request =>
        {
            if (request is StartBackendOptions)
                isStarted = record.Forget(_ => true);
        }), record, _log.CreateLogger("cbdd"));
        reconciler.Pass(() => false);
        Assert.True(isStarted);
        Assert.Empty(record.Entries);
        AssertLeft(backend);
    }

    [Fact]
    public void Of_a_run_line_end_when_the_daemon_is_told_to()
    {
        using var stop = new StopSignal();
        using Disk held = Disk.Open(new DiskOptions { Path = FilePath });
        var lines = new RunLines(_node.Node, _record, _daemon, stop, _log.CreateLogger("cbdd"));
        ParsedVerb line = VerbSet.ForDaemon().ParseLine($"backend-start -p {FilePath} --timeout 86400");
        var start = Task.Factory.StartNew(() => lines.Do(line), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        Eventually.True(() => _record.Entries.Count == 1 && _record.WaitsOf(_record.Entries[0].Number)?.Contains("in use", StringComparison.Ordinal) == true);
        stop.Handle(PosixSignal.SIGTERM);
        Eventually.True(() => start.IsCompleted);
        Assert.True(start.IsCompletedSuccessfully);
        Eventually.True(() => _record.Entries.Count == 0);
        Assert.Empty(_node.Node.Execute(Operations.ListBackends, new ListRequest()));
    }

    [Fact]
    public void End_when_the_disk_is_stopped_by_its_path()
    {
        int backend = LeaveARecord();
        using Disk held = Disk.Open(new DiskOptions { Path = FilePath });
        var start = Task.Factory.StartNew(() => Assert.Throws<CbdException>(() => Start(backend: backend)), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        Eventually.True(() => _record.Entries.Count == 1 && _record.WaitsOf(_record.Entries[0].Number)?.Contains("in use", StringComparison.Ordinal) == true);
        _daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = FilePath });
        Assert.EndsWith("was stopped while it was started", Eventually.Result(start).Message, StringComparison.Ordinal);
        Assert.Empty(_record.Entries);
    }
}
