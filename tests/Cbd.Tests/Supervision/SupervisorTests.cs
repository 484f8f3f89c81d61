using Cbd.Memory;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Tests.Memory;
using Microsoft.Extensions.Logging.Abstractions;
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
        manager.connect("\0" + os.environ["NOTIFY_SOCKET"][1:])
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
        """;

    private readonly TemporaryDirectory _directory = new();

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

    private void Passes(string script)
    {
        Assert.SkipUnless(File.Exists(Python), "python3 is not installed");
        File.WriteAllText(_directory.PathOf("worker.py"), Common + "\n" + script);
        using var upstream = new Upstream(null, null);
        string errors = _directory.PathOf("errors");
        using var shell = FileDescriptor.Open("/bin/sh", OpenFlags.ReadOnly);
        // What the script says is for the message of a test that fails.
        var supervisor = new Supervisor(
            shell, ["sh", "-c", $"exec {Python} {_directory.PathOf("worker.py")} {_directory.PathOf("marker")} 2>>{errors}"], [], upstream, NullLogger.Instance);
        Task<int> running = Task.Run(supervisor.Run);
        // One that goes on for ever is left alone: the tests end with it.
        Assert.True(running.Wait(PatientMs), $"the supervisor did not end: {File.ReadAllText(errors)}");
        using (supervisor)
            Assert.True(running.Result == 0, File.ReadAllText(errors));
    }
}
