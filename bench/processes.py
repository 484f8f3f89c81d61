"""What the comparison starts, and how all of it ends: daemons, servers, their directories, sockets and regions.

Every process ends with this one, even if this one is killed (PDEATHSIG); directories and regions are removed by
Workplace.close, which compare.py calls however it ends.
"""

import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

START_LIMIT_S = 30
WITH_THIS_PROCESS = ("setpriv", "--pdeathsig", "KILL")


def pinned(cpu):
    return [] if cpu is None else ["taskset", "-c", str(cpu)]


class Failed(Exception):
    """A program did not do what it was started for; the text says which and what it said."""


class Workplace:
    """Directories and files of one run, the processes in it, and the CPUs that they are pinned to.

    cpus: (client, server). The client of a measurement runs on the first, the daemon that has the disk on the second.
    """

    def __init__(self, root, cpus, lock):
        self.root = root
        self.client_cpu, self.server_cpu = cpus
        self.cbdd = os.environ.get("CBDD", f"{root}/out/cbdd")
        self.cbdctrl = os.environ.get("CBDCTRL", f"{root}/out/cbdctrl")
        self.directory = tempfile.mkdtemp(prefix="cbd-bench.", dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.name = os.path.basename(self.directory)
        # Of a device: nobody else on this machine has it.
        self.device = f"bench{os.getpid()}"
        self.commands = {}
        self._lock = open(lock, "w") if lock else None
        self._started = []
        self._regions = []

    def path(self, name):
        return f"{self.directory}/{name}"

    def region(self, name):
        """Path of a region in /dev/shm that is removed at the end."""
        path = f"/dev/shm/{self.name}.{name}"
        self._regions.append(path)
        return path

    def start(self, command, cpu=None, log="log"):
        """Starts a process that ends with this one; returns it."""
        with open(self.path(log), "ab") as output:
            process = subprocess.Popen(
                [*WITH_THIS_PROCESS, *pinned(cpu), *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._started.append(process)
        return process

    def end(self, *processes):
        """SIGTERM, and SIGKILL for those that do not end by it."""
        for process in processes:
            if process.poll() is None:
                process.terminate()
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process in self._started:
                self._started.remove(process)

    def run(self, command, cpu=None, what=None):
        """Runs a command to its end and returns its stdout. With what, the command is remembered for the report."""
        full = [*pinned(cpu), *command]
        if what:
            self.remember(what, full)
        done = subprocess.run(
            [*WITH_THIS_PROCESS, *full], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"{shlex.join(full)}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")
        return done.stdout

    def remember(self, what, command):
        """Keeps the first command of that kind for the report, without what differs from run to run."""
        text = shlex.join(command).replace(self.cbdd, "cbdd").replace(self.cbdctrl, "cbdctrl")
        text = text.replace(f"/dev/shm/{self.name}.", "/dev/shm/").replace(self.directory, "/var/tmp/bench").replace(self.device, "bench")
        self.commands.setdefault(what, text.replace(f"{self.root}/", ""))

    def alone(self):
        """A context in which nobody else who takes the --lock file, shared or not, does anything."""
        return _Held(self._lock)

    def await_ready(self, what, process, is_ready):
        limit = time.monotonic() + START_LIMIT_S
        while not is_ready():
            if process.poll() is not None:
                raise Failed(f"{what} ended at its start, exit code {process.returncode}: {self._last_words()}")
            if time.monotonic() > limit:
                raise Failed(f"{what} is not ready after {START_LIMIT_S} s: {self._last_words()}")
            time.sleep(0.005)

    def _last_words(self):
        logs = sorted(
            (p for p in os.scandir(self.directory) if p.is_file() and p.name.endswith("log")),
            key=lambda p: p.stat().st_mtime,
        )
        if not logs:
            return "no log"
        with open(logs[-1].path, errors="replace") as log:
            return " ".join(log.read()[-400:].split())

    def close(self):
        self.end(*list(self._started))
        # Those whose start was interrupted are not among them, and would write where everything is removed.
        for child in children():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        for path in self._regions:
            if os.path.exists(path):
                os.remove(path)
        shutil.rmtree(self.directory, ignore_errors=True)


class _Held:
    def __init__(self, file):
        self._file = file

    def __enter__(self):
        if self._file:
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_):
        if self._file:
            fcntl.flock(self._file, fcntl.LOCK_UN)


class Daemon:
    """A cbdd with directories of its own: one host."""

    def __init__(self, place, name, cpu=None):
        self._place = place
        self.name = name
        self.run_dir = place.path(f"{name}/run")
        os.makedirs(place.path(name), exist_ok=True)
        command = [place.cbdd, "--run-dir", self.run_dir, "--state-dir", place.path(f"{name}/state")]
        place.remember(f"daemon, {'not pinned' if cpu is None else f'CPU {cpu}'}", [*pinned(cpu), *command])
        before = time.monotonic()
        self.process = place.start(command, cpu, f"{name}.log")
        place.await_ready(f"cbdd {name}", self.process, lambda: os.path.exists(f"{self.run_dir}/cbdd.sock"))
        self.start_s = time.monotonic() - before

    def ctl(self, *verb, cpu=None, what=None):
        verb = [str(part) for part in verb]
        if what:
            self._place.remember(what, [*pinned(cpu), self._place.cbdctrl, *verb])
        return self._place.run([self._place.cbdctrl, "--run-dir", self.run_dir, *verb], cpu).strip()

    def register(self, region, *options, what=None):
        return self.ctl("tp-reg", "-H", self.name, "-p", region, *options, what=what)

    def bench(self, *options, cpu=None, what=None):
        """cbdctrl bench on a backend of this daemon; the report as bench prints it."""
        return json.loads(self.ctl("bench", *options, "-o", "json", cpu=cpu, what=what))

    def cpu_s(self):
        return cpu_s(self.process.pid)

    def own_memory_bytes(self):
        """RssAnon: what the process has for itself, without the region and its program's file."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

    def stop(self):
        self._place.end(self.process)


class Server:
    """An NBD server on a Unix socket that is not CBD's."""

    def __init__(self, place, name, command, cpu=None, what=None):
        self.socket = place.path(f"{name}.sock")
        full = [part.replace("SOCKET", self.socket) for part in command]
        if what:
            place.remember(what, [*pinned(cpu), *full])
        self._place = place
        self.process = place.start(full, cpu, f"{name}.log")
        place.await_ready(name, self.process, lambda: os.path.exists(self.socket))

    @property
    def uri(self):
        return f"nbd+unix:///?socket={self.socket}"

    def stop(self):
        self._place.end(self.process)
        if os.path.exists(self.socket):
            os.remove(self.socket)


def children():
    """The processes that this one has started and not waited for; none where the kernel does not tell."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def cpu_s(pid):
    """User and system time of a process so far, s; ticks of /proc/PID/stat (its name in field 2 may have blanks)."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
