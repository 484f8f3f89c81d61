"""Daemons on one region: hosts that can be killed, stopped and started again, and everything that they leave behind."""

import contextlib
import errno
import glob
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CBDD = os.environ.get("CBDD", os.path.join(ROOT, "out/cbdd"))
CBDCTRL = os.environ.get("CBDCTRL", os.path.join(ROOT, "out/cbdctrl"))


class Wrong(Exception):
    """What must never happen did: the run ends, its directory is kept."""


def await_(seconds, what, condition, step=0.01):
    """Waits for the condition; the bound is no measure, so it is generous."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > limit:
            raise Wrong(f"{what} did not happen within {seconds} s")
        time.sleep(step)
    return value


def command(*words, **options):
    """Runs a program that must succeed; returns what it printed."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120, check=False, **options)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(words)} ended with exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def is_free(device):
    """Nobody has the block device for himself, as a mounted file system has; a dead one is free."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def loops_of(pids, device=None):
    """Loop devices that daemons with these process ids made, and that of the device with that name."""
    found = []
    for name in glob.glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError), open(name, encoding="utf-8") as file:
            backing = file.read()
            if any(f".cbdd-{pid}-" in backing for pid in pids) or device and f"/{device}.cbdd-" in backing:
                found.append("/dev/" + name.split("/")[3])
    return found


class Host:
    """One daemon with directories of its own; it may be started many times."""

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.home = os.path.join(world.work, name)
        self.log, self.state = os.path.join(self.home, "log"), os.path.join(self.home, "state")
        self.environment = {}
        self.process = None
        self.pids = []
        os.makedirs(self.home)

    @property
    def run_dir(self):
        return os.path.join(self.home, "run")

    def launch(self, *options, boot=None):
        """Starts the daemon and does not wait. With a boot id's file, it takes that for its system's."""
        elsewhere = ["unshare", "-m", "sh", "-c", 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"', "sh", boot] if boot else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*elsewhere, CBDD, "--run-dir", self.run_dir, "--state-dir", self.state,
                 "--disks-dir", os.path.join(os.path.dirname(self.home), "disks"), *options],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env=os.environ | self.environment)
        self.pids.append(self.process.pid)

    def ready(self):
        """Waits until the daemon answers: then everything that was asked for at start is up, or its failure is logged."""
        await_(90, f"that daemon {self.name} answers", self._answers, 0.02)

    def _answers(self):
        if self.process.poll() is not None:
            raise Wrong(f"daemon {self.name} ended at its start with exit code {self.process.returncode}: {self.log_end()}")
        return self.try_ctl("tp-list")[0] == 0

    def start(self, *options):
        self.launch(*options)
        self.ready()
        # What the record wants comes back while the daemon answers already; what cannot, the caller looks for itself.
        self.try_ctl("wait", "--timeout", "20")

    def try_ctl(self, *words):
        """(exit code, stdout, stderr) of a verb."""
        done = subprocess.run([CBDCTRL, "--run-dir", self.run_dir, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    def keep_flights(self):
        """The last events of its channels, beside its log; those of a daemon that is dead are in its state directory."""
        if not self.alive():
            return
        try:
            status, out, err = self.try_ctl("dump")
            path = self.world.path(f"{self.name}.flights")
            with open(path, "w") as file:
                file.write(out if status == 0 else err)
            print(f"torture: the last events of the channels of {self.name}: {path}", flush=True)
        except (OSError, subprocess.SubprocessError) as e:
            print(f"torture: the last events of the channels of {self.name} cannot be had: {e}", flush=True)

    def ctl(self, *words):
        status, out, err = self.try_ctl(*words)
        if status != 0:
            raise Wrong(f"{self.name}: cbdctrl {' '.join(words)}: exit code {status}: {err}")
        return out

    def list(self, verb, *words):
        return json.loads(self.ctl(verb, *words))

    def kill(self):
        """SIGKILL; returns when the process is gone."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def worker(self, needed=True):
        """Process id of the worker of a supervised daemon; None if there is none at the moment, unless it is needed."""
        def child():
            with contextlib.suppress(OSError), open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="utf-8") as file:
                if words := file.read().split():
                    return int(words[0])
            # Without a supervisor only the daemon's lock names it.
            with contextlib.suppress(OSError, ValueError), open(os.path.join(self.run_dir, "lock"), encoding="utf-8") as file:
                pid = int(file.read())
                with open(f"/proc/{pid}/cmdline", encoding="utf-8") as words:
                    if not self.alive() and self.run_dir in words.read():
                        return pid
            return None
        return await_(60, f"a worker of {self.name}", child, 0.001) if needed else child()

    def kill_worker(self):
        """What outlived its supervisor, if anything did."""
        if (pid := self.worker(False)) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                await_(60, f"the end of {pid}", lambda: not os.path.exists(f"/proc/{pid}"))

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def must_live(self):
        if not self.alive():
            raise Wrong(f"daemon {self.name} ended by itself with exit code {self.process.returncode}: {self.log_end()}")

    def stop(self):
        """SIGTERM; the daemon must drain and end with exit code 0."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(90)
        except subprocess.TimeoutExpired:
            raise Wrong(f"daemon {self.name} does not end after SIGTERM") from None
        if status != 0:
            raise Wrong(f"daemon {self.name} ended with exit code {status} after SIGTERM: {self.log_end()}")

    def log_end(self, lines=3):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return " | ".join(log.read().splitlines()[-lines:])


class World:
    """Everything of one run: a directory, a region, daemons, mounts. Leaves nothing behind, however the run ends; a run
    that went wrong keeps its directory with disks, logs and the region."""

    def __init__(self, mode):
        base = os.environ.get("TMPDIR", "/var/tmp")  # not /tmp, which may have no O_DIRECT
        self.work = tempfile.mkdtemp(prefix=f"cbd-torture-{mode}.", dir=base)
        self.region = "/dev/shm/" + os.path.basename(self.work)
        self.device = f"torture{os.getpid()}x"
        self.hosts, self.processes, self.mounts, self.small, self.loops = [], [], [], [], []

    def path(self, name):
        return os.path.join(self.work, name)

    def host(self, name, *options, prepare=None):
        host = Host(self, name)
        self.hosts.append(host)
        if prepare:
            prepare(host)
        host.start(*options)
        return host

    def two_hosts(self, size="128M", prepare=None):
        """Prepare is called with each host before its daemon starts."""
        alpha, beta = self.host("alpha", prepare=prepare), self.host("beta", prepare=prepare)
        alpha.ctl("tp-reg", "-H", "alpha", "-p", self.region, "--format", "--size", size)
        beta.ctl("tp-reg", "-H", "beta", "-p", self.region)
        return alpha, beta

    def attach(self, host, *options):
        """The node of a device on backend 0, with a name that nobody else on this machine has."""
        return host.ctl("dev-start", "-b", "0", "--attach", "fuse", "--name", self.device, *options)

    def disk(self, name, size):
        path = self.path(name)
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def spawn(self, *words, **options):
        """A background process; it ends with this world, and its children with it."""
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True, **options)
        self.processes.append(process)
        return process

    def mount(self, node, name="mount", *options):
        where = self.path(name)
        os.makedirs(where, exist_ok=True)
        command("mount", *options, node, where)
        self.mounts.append(where)
        return where

    def tmpfs(self, name, size):
        """A small file system of its own; a run that went wrong keeps what is in it."""
        where = self.mount("none", name, "-t", "tmpfs", "-o", f"size={size},mode=700")
        self.small.append(where)
        return where

    def keep_small(self):
        for where in self.small:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(where, where + ".kept", ignore=lambda place, names: [name for name in names if stat.S_ISSOCK(os.lstat(os.path.join(place, name)).st_mode)])

    def unmount(self, where):
        """Until the file system has ended: a mount namespace that another program made meanwhile may have it for a moment longer."""
        with open("/proc/self/mounts") as mounts:
            source = next((words[0] for line in mounts if (words := line.split())[1] == where), "")
        command("umount", where)
        if os.path.exists(source) and stat.S_ISBLK(os.stat(source).st_mode):
            await_(60, f"the end of the file system on {source}", lambda: is_free(source))
        self.mounts.remove(where)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        # A stopped daemon cannot be unmounted from, a dead one gives errors at once.
        for host in self.hosts:
            if host.alive():
                host.process.send_signal(signal.SIGCONT)
        if kind is not None:
            for host in self.hosts:
                print(f"torture: log of {host.name} (pids {host.pids[-3:]}): {host.log_end(8)}", flush=True)
                host.keep_flights()
            if not issubclass(kind, KeyboardInterrupt):
                self.keep_small()
        for where in reversed(self.mounts):
            subprocess.run(["umount", "-l", where], stderr=subprocess.DEVNULL, check=False)
        for host in self.hosts:
            if host.alive():
                host.kill()
            host.kill_worker()
        for process in self.processes:
            process.wait()
        for loop in self.loops + loops_of([pid for host in self.hosts for pid in host.pids], self.device):
            subprocess.run(["losetup", "-d", loop], stderr=subprocess.DEVNULL, check=False)
            for link in glob.glob("/dev/cbd[0-9]*") + glob.glob("/dev/cbd/*"):
                if os.path.islink(link) and os.readlink(link) == loop:
                    os.unlink(link)
        if kind is not None and not issubclass(kind, KeyboardInterrupt):
            with contextlib.suppress(OSError):
                shutil.move(self.region, self.path("region"))
            print(f"torture: kept {self.work}", flush=True)
        else:
            shutil.rmtree(self.work, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self.region)
