using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Cbd.Memory;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Tests.Memory;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>
/// A supervisor with real workers, which are scripts. A script that kills itself is started again; the exit code of one that ends by itself before it
/// is ready is the supervisor's, so that 0 says that the script found what it had to.
/// </summary>
public sealed class SupervisorTests : IDisposable
{
    private const int PatientMs = 120_000;
    private const string Python = "/usr/bin/python3";

    private const string Common = """
        import os, signal, socket, sys
        manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        manager.connect(os.environ["NOTIFY_SOCKET"])
        names = [n for n in os.environ.get("LISTEN_FDNAMES", "").split(":") if n]
        def tell(text, *fds):
            socket.send_fds(manager, [text.encode()], list(fds))
        def keep(name, fd):
            tell(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)
        def barrier():
            r, w = os.pipe()
            tell("BARRIER=1", w)
            os.close(w)
            text = b""
            while part := os.read(r, 4096):
                text += part
            return text.decode()
        def die():
            os.kill(os.getpid(), signal.SIGKILL)
        def place(name):
            return os.path.join(os.path.dirname(sys.argv[1]), name)
        def wait_for(name):
            import time
            open(place("up"), "w").close()
            while not os.path.exists(place(name)):
                time.sleep(0.01)
        """;

    private readonly TemporaryDirectory _directory = new();
    private readonly ConcurrentQueue<string> _lines = new();
    private string? _throwsAt;

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void What_a_worker_kept_comes_back_to_the_next_one_in_order_under_its_names() => Passes("""
        if not names:
            a, b = socket.socketpair()
            a.send(b"from the first worker")
            memory = os.memfd_create("record")
            os.write(memory, b"kept")
            keep("device-0123456789abcdef", memory)
            keep("nbd-b", b.fileno())
            assert barrier() == ""
            die()
        assert names == ["device-0123456789abcdef", "nbd-b"], names
        assert os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "2"
        assert os.pread(3, 10, 0) == b"kept"
        assert socket.socket(fileno=4).recv(100) == b"from the first worker"
        """);

    [Theory]
    [InlineData("open('/bin/false', 'rb').read()", "it ended with exit code 1 before it was ready")]
    [InlineData("b'no program'", "it cannot be started")]
    public void A_program_that_does_not_get_ready_is_taken_back(string program, string why) => Passes($"""
        failure = os.environ.get("CBD_UPGRADE_FAILURE")
        if failure is None:
            memory = os.memfd_create("program")
            os.write(memory, {program})
            keep("program-next", memory)
            assert barrier() == ""
            tell("X_CBD_SIGNALS=1")
            tell("X_CBD_UPGRADE=1")
            signal.pause()
        assert "{why}" in failure, failure
        assert names == [], names
        assert os.environ["CBD_PROGRAM"] == "/bin/sh"
        """);

    [Fact]
    public void A_worker_on_trial_gets_no_other_program_and_each_worker_is_told_which_one_it_is() => Passes("""
        restarts, failure = os.environ["CBD_RESTARTS"], os.environ.get("CBD_UPGRADE_FAILURE")
        def offer():
            memory = os.memfd_create("program")
            os.write(memory, open("/bin/sh", "rb").read())
            keep("program-next", memory)
            return barrier()
        if restarts == "0":
            assert "CBD_FOLLOWED" not in os.environ
            tell("X_CBD_STARTED=1")
            assert offer() == ""
            tell("X_CBD_SIGNALS=1")
            tell("X_CBD_UPGRADE=1")
            signal.pause()
        if restarts == "1":
            assert os.environ["CBD_FOLLOWED"] == "1" and failure is None
            assert "another program is just being started" in offer()
            os._exit(75)
        assert restarts == "2" and "exit code 75" in failure, (restarts, failure)
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
        tell("X_CBD_SIGNALS=1")
        open(place("taken-back"), "w").close()
        while True:
            signal.pause()
        """,
        supervisor =>
        {
            AwaitFile("taken-back");
            supervisor.Take(PosixSignal.SIGTERM);
        });

    [Fact]
    public void What_was_sent_just_before_a_death_is_kept_and_what_was_removed_is_not() => Passes("""
        if not names:
            a, b = socket.socketpair()
            keep("nbd-a", a.fileno())
            keep("nbd-b", b.fileno())
            tell("FDSTOREREMOVE=1\nFDNAME=nbd-a")
            die()
        assert names == ["nbd-b"], names
        """);

    [Fact]
    public void Nobody_but_the_worker_is_believed() => Passes("""
        marker = sys.argv[1]
        if not os.path.exists(marker):
            open(marker, "w").close()
            a, b = socket.socketpair()
            child = os.fork()
            if child == 0:
                keep("nbd-a", a.fileno())
                tell("READY=1")
                os._exit(0)
            os.waitpid(child, 0)
            assert barrier() == ""
            die()
        assert names == [], names
        """);

    [Fact]
    public void What_is_refused_is_told_at_the_barrier_and_once() => Passes("""
        a, b = socket.socketpair()
        keep("nbd-a", a.fileno())
        keep("nbd-a", b.fileno())
        keep("region", a.fileno())
        keep("nbd-file", os.open("/dev/null", os.O_RDWR))
        tell("FDSTORE=1\nFDNAME=nbd-none")
        tell("FDSTORE=1\nFDNAME=nbd-two", a.fileno(), b.fileno())
        said = barrier().splitlines()
        assert [line.split(":")[0] for line in said] == ["nbd-a", "region", "nbd-file", "nbd-none", "nbd-two"], said
        assert barrier() == ""
        """);

    [Fact]
    public void A_store_that_is_full_refuses_and_keeps_what_it_has() => Passes("""
        capacity = int(os.environ["FDSTORE"])
        if not names:
            a, b = socket.socketpair()
            for i in range(capacity):
                keep(f"nbd-{i}", a.fileno())
                if i % 100 == 0:
                    assert barrier() == ""
            assert barrier() == ""
            keep("nbd-more", a.fileno())
            said = barrier()
            assert said.startswith(f"nbd-more: {capacity} are kept, which is the limit"), said
            die()
        assert names == [f"nbd-{i}" for i in range(capacity)], len(names)
        """);

    [Fact]
    public void A_worker_has_nothing_open_that_is_the_supervisors() => Passes("""
        there = set()
        for n in os.listdir("/proc/self/fd"):
            try:
                there.add(os.readlink(f"/proc/self/fd/{n}"))
            except FileNotFoundError:
                pass
        supervisor = {os.readlink(f"/proc/{os.getppid()}/fd/{n}") for n in ("0", "1", "2")}
        there -= supervisor | {os.readlink("/proc/self/fd/2"), "socket:[%d]" % os.fstat(manager.fileno()).st_ino, f"/proc/{os.getpid()}/fd"}
        assert not there, there
        """);

    [Fact]
    public void Another_user_cannot_reach_the_socket_and_no_file_of_it_is_left()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root can be another user");
        Passes("""
            child = os.fork()
            if child == 0:
                os.setgid(65534)
                os.setuid(65534)
                try:
                    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).connect(os.environ["NOTIFY_SOCKET"])
                except PermissionError:
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            left = [name for name in os.listdir(os.path.dirname(sys.argv[1])) if name.startswith("notify-")]
            assert not left, left
            """);
    }

    [Fact]
    public void Others_of_the_user_that_fill_the_queue_lose_nothing_of_the_worker() => Passes("""
        if not names:
            children = []
            for i in range(2):
                child = os.fork()
                if child == 0:
                    while True:
                        tell("READY=1", 0, 1, 2)
                children.append(child)
            a, b = socket.socketpair()
            for i in range(20):
                keep(f"nbd-{i}", a.fileno())
                assert barrier() == ""
            for child in children:
                os.kill(child, signal.SIGKILL)
            die()
        assert names == [f"nbd-{i}" for i in range(20)], names
        """);

    [Fact]
    public void A_signal_waits_until_the_worker_can_take_it()
    {
        Passes(
            """
            wait_for("signalled")
            # All that was there before the second of these is dealt with.
            barrier()
            barrier()
            signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
            tell("X_CBD_SIGNALS=1")
            while True:
                signal.pause()
            """,
            supervisor =>
            {
                AwaitFile("up");
                supervisor.Take(PosixSignal.SIGTERM);
                File.WriteAllText(_directory.PathOf("signalled"), "");
            });
    }

    [Fact]
    public void A_stop_in_a_pause_starts_a_worker_that_ends_what_is_kept()
    {
        Passes(
            """
            if not os.path.exists(place("told")):
                if not names:
                    a, b = socket.socketpair()
                    keep("nbd-a", a.fileno())
                die()
            assert names == ["nbd-a"], names
            def end(*_):
                tell("FDSTOREREMOVE=1\nFDNAME=nbd-a")
                open(place("ended"), "w").close()
                os._exit(0)
            signal.signal(signal.SIGUSR1, end)
            tell("X_CBD_SIGNALS=1")
            barrier()
            assert not os.path.exists(place("ended"))
            tell("READY=1")
            while True:
                signal.pause()
            """,
            supervisor =>
            {
                AwaitLine("is started in 1600 ms");
                File.WriteAllText(_directory.PathOf("told"), "");
                supervisor.Take(PosixSignal.SIGTERM);
            });
        Assert.True(File.Exists(_directory.PathOf("ended")));
        Assert.DoesNotContain(_lines, line => line.Contains("no worker has ended", StringComparison.Ordinal));
    }

    [Fact]
    public void What_no_worker_could_end_is_named()
    {
        Passes(
            """
            if os.path.exists(place("told")):
                os._exit(5)
            if not names:
                a, b = socket.socketpair()
                keep("nbd-a", a.fileno())
            die()
            """,
            supervisor =>
            {
                AwaitLine("is started in 1600 ms");
                File.WriteAllText(_directory.PathOf("told"), "");
                supervisor.Take(PosixSignal.SIGTERM);
            },
            exitCode: 5);
        Assert.Contains(_lines, line => line.StartsWith("no worker has ended what is kept: nbd-a;", StringComparison.Ordinal));
    }

    [Fact]
    public void A_worker_that_waited_and_then_failed_for_good_ends_the_supervisor_with_its_code() => Passes(
        """
        tell("READY=1\nSTATUS=waits")
        assert barrier() == ""
        os._exit(3)
        """,
        exitCode: 3);

    [Fact]
    public void A_worker_that_had_started_is_started_again_however_it_ends() => Passes("""
        if not os.path.exists(sys.argv[1]):
            open(sys.argv[1], "w").close()
            tell("READY=1")
            tell("X_CBD_STARTED=1")
            os._exit(3)
        open(place("second"), "w").close()
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
        tell("X_CBD_SIGNALS=1")
        while True:
            signal.pause()
        """,
        supervisor =>
        {
            AwaitFile("second");
            supervisor.Take(PosixSignal.SIGTERM);
        });

    [Fact]
    public void A_worker_that_never_gave_a_sign_of_life_is_not_waited_for() => Passes(
        """
        import time
        tell("READY=1")
        time.sleep(1.5)
        os._exit(7)
        """,
        exitCode: 7, watchdogMs: 200);

    [Fact]
    public void A_worker_that_gives_no_further_sign_of_life_is_killed_also_before_it_is_ready() => Passes(
        """
        if os.path.exists(sys.argv[1]):
            os._exit(0)
        open(sys.argv[1], "w").close()
        tell("WATCHDOG=1")
        while True:
            signal.pause()
        """,
        watchdogMs: 200);

    [Fact]
    public void What_fails_in_the_supervisor_is_logged_and_it_goes_on()
    {
        _throwsAt = "is not kept";
        Passes("""
            if not names:
                a, b = socket.socketpair()
                keep("region", a.fileno())
                keep("nbd-a", b.fileno())
                assert barrier() == ""
                die()
            assert names == ["nbd-a"], names
            """);
        Assert.Contains("the supervisor goes on after what must not happen: InvalidOperationException: is not kept", _lines);
    }

    private void AwaitFile(string name) => Await(() => File.Exists(_directory.PathOf(name)), name);

    private void AwaitLine(string text) => Await(() => _lines.Any(line => line.Contains(text, StringComparison.Ordinal)), text);

    private static void Await(Func<bool> isThere, string what) => Assert.True(SpinWait.SpinUntil(isThere, PatientMs), $"'{what}' did not come");

    private void Passes(string script, Action<Supervisor>? meanwhile = null, int exitCode = 0, long? watchdogMs = null)
    {
        Assert.SkipUnless(File.Exists(Python), "python3 is not installed");
        File.WriteAllText(_directory.PathOf("worker.py"), Common + "\n" + script);
        using var upstream = new Upstream(null, watchdogMs);
        string errors = _directory.PathOf("errors");
        using var shell = FileDescriptor.Open("/bin/sh", OpenFlags.ReadOnly);
        // What the script says is for the message of a test that fails.
        var supervisor = new Supervisor(
            new WorkerProgram(shell, "/bin/sh"), ["sh", "-c", $"exec {Python} {_directory.PathOf("worker.py")} {_directory.PathOf("marker")} 2>>{errors}"], [], _directory.PathOf("."), upstream, new Logger(this));
        Task<int> running = Task.Run(supervisor.Run);
        meanwhile?.Invoke(supervisor);
        // One that goes on for ever is left alone: the tests end with it.
        Assert.True(running.Wait(PatientMs), $"the supervisor did not end: {Errors()}");
        using (supervisor)
            Assert.True(running.Result == exitCode, $"exit code {running.Result}: {Errors()}");

        string Errors() => (File.Exists(errors) ? File.ReadAllText(errors) : "") + string.Join('\n', _lines);
    }

    /// <summary>Keeps the lines, and throws at one of them, once.</summary>
    private sealed class Logger(SupervisorTests test) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            string line = formatter(state, exception);
            test._lines.Enqueue(line);
            if (test._throwsAt is not { } text || !line.Contains(text, StringComparison.Ordinal))
                return;
            test._throwsAt = null;
            throw new InvalidOperationException(text);
        }
    }
}
