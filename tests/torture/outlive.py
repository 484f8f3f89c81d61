"""Devices outlive their worker: kills under 'cbdd --supervise' with a load that verifies, and what its users feel of them.

A probe does one direct I/O of 4 KiB on the device after the other; the pause of a kill is the longest that one of them took
over it. `outlive.py probe NODE OFFSET LENGTH RECORDS` is the probe, `outlive.py database PATH MODE NOTES STOP` a writer of SQLite.
"""

import contextlib
import errno
import mmap
import os
import random
import re
import select
import shutil
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import time
import zlib

import outlive_guest
from backend_kills import advanced, end_fio, fio_words
from hosts import CBDD, World, Wrong, await_, command
from stamps import BLOCK, READS, Ledger, Load, judge, prepare, read_stamp, stamp

LIMIT_S = 60
SIZE = 640 << 20
FILE_SYSTEM = 512 << 20
# The last part of the device is the probe's: the file system ends before it.
PROBE_AT, PROBE_LENGTH = 576 << 20, 16 << 20
EVERY = 50
FILE_SYSTEMS = ("ext4", "xfs", "raw")
# A lease that is short enough to be missed many times.
TIMES = ("--beat-ms", "100", "--fence-ms", "400", "--dead-ms", "1000")
RECORD = struct.Struct("<qq")
MEDIAN_LIMIT_S, LONGEST_LIMIT_S = 0.3, 1.0
DATABASES = ("DELETE", "WAL")


# The probe, a process of its own.

def probe(node, offset, length, path):
    """Writes a block and reads it back, again and again; notes when each I/O began and ended. Reads alone where the kernel lets nobody write a
    device that is mounted."""
    offset, blocks = int(offset), int(length) // BLOCK
    try:
        fd, writes = os.open(node, os.O_RDWR | os.O_DIRECT), True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EPERM):
            raise
        fd, writes = os.open(node, os.O_RDONLY | os.O_DIRECT), False
    buffer = mmap.mmap(-1, BLOCK)
    choose = random.Random(os.getpid())
    sequence = 0
    with open(path, "wb", buffering=0) as records:
        def timed(action):
            start = time.monotonic_ns()
            done = action(fd, [buffer], offset + lba * BLOCK)
            records.write(RECORD.pack(start, time.monotonic_ns()))
            if done != BLOCK:
                raise OSError(errno.EIO, f"only {done} bytes")
        while True:
            lba = choose.randrange(blocks)
            if writes:
                sequence += 1
                buffer[:] = stamp(lba, 0, sequence)
                timed(os.pwritev)
                buffer[:] = bytes(BLOCK)
            timed(os.preadv)
            if writes and (found := read_stamp(bytes(buffer), lba, 0)) != sequence:
                raise ValueError(f"block {lba}: sequence {found} was read, {sequence} was written")
            time.sleep(0.002)


class Probe:
    def __init__(self, world, node):
        self.path, self.errors = world.path("probe"), world.path("probe.errors")
        with open(self.path, "wb"):
            pass
        with open(self.errors, "wb") as errors:
            self.process = world.spawn(sys.executable, os.path.abspath(__file__), "probe", node, str(PROBE_AT), str(PROBE_LENGTH), self.path, stderr=errors)
        self.read, self.rows = 0, []

    def records(self):
        """All I/Os so far: (begun, ended), seconds of the monotonic clock."""
        with open(self.path, "rb") as file:
            file.seek(self.read)
            new = file.read()
        new = new[:len(new) - len(new) % RECORD.size]
        self.read += len(new)
        self.rows += [(start / 1e9, end / 1e9) for start, end in RECORD.iter_unpack(new)]
        return self.rows

    def complaint(self):
        if self.process.poll() is None:
            return None
        with open(self.errors, encoding="utf-8") as errors:
            return f"the probe ended: {errors.read().strip().splitlines()[-1:]}"

    def goes_on(self, since):
        """An I/O that began after that moment has ended."""
        rows = self.records()
        return bool(rows) and rows[-1][0] >= since

    def longest(self, since):
        """The longest that an I/O took which ended after that moment."""
        return max((end - start for start, end in self.records() if end >= since), default=0)

    def stop(self):
        if complaint := self.complaint():
            raise Wrong(complaint)
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


# A database, a process of its own for each mode of its journal.

def text_of(number):
    return f"{number}/" + format(zlib.crc32(str(number).encode()), "08x") * random.Random(number).randrange(2, 250)


def write_database(path, mode, notes, stop):
    database = sqlite3.connect(path, isolation_level=None)
    database.execute(f"PRAGMA journal_mode={mode}")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT)")
    number = 0
    with open(notes, "wb", buffering=0) as noted:
        while not os.path.exists(stop):
            database.execute("BEGIN IMMEDIATE")
            first = number
            for _ in range(1 + number % 3):
                number += 1
                database.execute("INSERT INTO entry VALUES (?, ?)", (number, text_of(number)))
            database.execute("COMMIT")
            noted.write(b"".join(struct.pack("<q", row) for row in range(first + 1, number + 1)))
    database.close()


class DatabaseLoad:
    """Two databases of SQLite; each committed row is noted outside of the device."""

    def __init__(self, world, where, _seed):
        self.world, self.where = world, where
        self.stop_file, self.processes = world.path("enough"), {}
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.stop_file)
        for mode in DATABASES:
            for left in (self.database(mode), self.notes(mode)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(left)
            with open(self.notes(mode) + ".errors", "wb") as errors:
                self.processes[mode] = world.spawn(sys.executable, os.path.abspath(__file__), "database", self.database(mode), mode,
                                                   self.notes(mode), self.stop_file, stderr=errors)

    def database(self, mode):
        return os.path.join(self.where, f"{mode}.db")

    def notes(self, mode):
        return self.world.path(f"rows.{mode}")

    def mark(self):
        return [os.path.getsize(self.notes(mode)) if os.path.exists(self.notes(mode)) else 0 for mode in DATABASES]

    def has_advanced(self, mark):
        return all(now > then for now, then in zip(self.mark(), mark))

    def complaint(self):
        for mode, process in self.processes.items():
            if process.poll():
                with open(self.notes(mode) + ".errors", encoding="utf-8") as errors:
                    return f"the writer of SQLite ({mode}) ended: {errors.read().strip().splitlines()[-1:]}"
        return None

    def end(self, progress):
        with open(self.stop_file, "wb"):
            pass
        for process in self.processes.values():
            process.wait(LIMIT_S)
        if complaint := self.complaint():
            raise Wrong(complaint)
        progress.count(rows_committed=sum(size // 8 for size in self.mark()))

    def judge(self):
        wrong = []
        for mode in DATABASES:
            with open(self.notes(mode), "rb") as file:
                noted = {row for row, in struct.iter_unpack("<q", file.read())}
            database = sqlite3.connect(self.database(mode), isolation_level=None)
            try:
                if (answer := database.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                    wrong.append(f"{mode}: integrity check: {answer[:3]}")
                there = dict(database.execute("SELECT id, text FROM entry").fetchall())
                lost = [row for row in noted if there.get(row) != text_of(row)]
                if lost or not noted:
                    wrong.append(f"{mode}: of {len(noted)} committed rows {len(lost)} are not there: {sorted(lost)[:5]}")
            except sqlite3.Error as error:
                wrong.append(f"{mode}: {error}")
            finally:
                database.close()
        return wrong


class FileLoad:
    """fio with verification on a big file, direct, and the stamped load, on a mounted file system."""

    def __init__(self, world, where, seed):
        self.ledger = Ledger(world.path("ledger"), writers=4, blocks=2048, seed=seed)
        prepare(self.ledger, where)
        self.where, self.output = where, world.path("fio.json")
        self.fio = world.spawn(*fio_words(where, self.output))
        self.load = Load(world, self.ledger, where)

    def mark(self):
        return self.ledger.progress()

    def has_advanced(self, mark):
        return advanced(self.ledger, mark)

    def complaint(self):
        if self.fio.poll() is not None:
            return f"fio ended by itself with exit code {self.fio.returncode}; see {self.output}"
        return self.ledger.complaint()

    def end(self, progress):
        self.load.stop()
        written, verified = end_fio(self.fio, self.output)
        if complaint := self.ledger.complaint():
            raise Wrong(complaint)
        progress.count(fio_MiB_written=written >> 20, fio_MiB_verified=verified >> 20, blocks_read_and_checked=self.ledger.total(READS))

    def judge(self):
        return judge(self.ledger, self.where, exact=True)


class RawLoad:
    """fio with verification on the device itself."""

    def __init__(self, world, node, _seed):
        self.output = world.path("fio.json")
        words = [word for word in fio_words(".", self.output) if not word.startswith(("--directory=", "--size="))]
        self.fio = world.spawn(*words, f"--filename={node}", f"--size={FILE_SYSTEM}")

    def mark(self):
        return None

    def has_advanced(self, _mark):
        return True

    def complaint(self):
        return None if self.fio.poll() is None else f"fio ended by itself with exit code {self.fio.returncode}; see {self.output}"

    def end(self, progress):
        written, verified = end_fio(self.fio, self.output)
        progress.count(fio_MiB_written=written >> 20, fio_MiB_verified=verified >> 20)

    def judge(self):
        return []


class KernelLog:
    """What the kernel says of a loop device, from now on."""

    BAD = re.compile(r"error|abort|shut|remount|corrupt|hung|lost", re.IGNORECASE)

    def __init__(self, loop):
        self.name = re.compile(rf"\b{re.escape(os.path.basename(loop))}\b")
        try:
            self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self.fd, 0, os.SEEK_END)
        except OSError:
            self.fd = None

    def complaint(self):
        while self.fd is not None:
            try:
                line = os.read(self.fd, 8192).decode(errors="replace").splitlines()[0]
            except BlockingIOError:
                return None
            except BrokenPipeError:
                continue  # lines were overwritten before they were read
            if self.name.search(line) and self.BAD.search(line):
                return f"the kernel says: {line.split(';', 1)[-1]}"
        return None


class Scene:
    """Two supervised daemons, a device, a load on it, and the checks that hold all the time."""

    def __init__(self, world, options, choose, progress):
        self.world, self.options, self.choose, self.progress = world, options, choose, progress
        self.words = ("--supervise", *(TIMES if options.who == "pause" else ()))
        self.alpha, self.beta = world.host("alpha", *self.words), world.host("beta", *self.words)
        self.alpha.ctl("tp-reg", "-H", "alpha", "-p", world.region, "--format", "--size", "128M")
        self.beta.ctl("tp-reg", "-H", "beta", "-p", world.region)
        # A file on tmpfs is one without O_DIRECT.
        folder = world.tmpfs("buffered", SIZE + (64 << 20)) if options.buffered else world.work
        self.alpha.ctl("backend-start", "-p", world.disk(os.path.join(folder, "disk"), SIZE), "-n", "2")
        self.attached(world.attach(self.beta, "--queues", "2"))
        self.where = self.fs = self.load = self.probe = None
        # The program of an upgrade is one more than the supervisor's own.
        self.descriptors = self.descriptors_of(self.beta) + (options.who == "upgrade")

    def attached(self, node):
        self.node = node
        self.loop, self.number = os.path.realpath(node), os.stat(node).st_rdev
        self.kernel = KernelLog(self.loop)

    @staticmethod
    def descriptors_of(host):
        return len(os.listdir(f"/proc/{host.process.pid}/fd"))

    def check(self):
        """What must hold at each moment."""
        self.alpha.must_live()
        self.beta.must_live()
        self.check_device()

    def check_device(self):
        for source in (self.load, self.probe, self.kernel):
            if source is not None and (complaint := source.complaint()):
                raise Wrong(complaint)
        if os.stat(self.loop).st_rdev != self.number:
            raise Wrong(f"{self.loop} is another device")
        try:
            now = os.readlink(self.node)
        except FileNotFoundError:
            now = "away"
        if now != self.loop:
            raise Wrong(f"{self.node} was {self.loop} and is {now}")
        if self.where:
            with open("/proc/self/mounts", encoding="utf-8") as mounts:
                line = next((line for line in mounts if line.split()[1] == self.where), "")
            if line.split()[2:3] != [self.fs] or line.split()[3].split(",")[0] != "rw":
                raise Wrong(f"the file system is not writable any more: {line.strip()}")

    def await_(self, what, condition, step=0.004):
        """Waits while all that must hold does."""
        limit = time.monotonic() + LIMIT_S
        while not condition():
            self.check_device()
            if time.monotonic() > limit:
                raise Wrong(f"{what} did not happen within {LIMIT_S} s")
            time.sleep(step)

    def begin(self, fs):
        """A file system, and the load on it."""
        self.fs = fs
        if fs == "ext4":
            command("mkfs.ext4", "-q", "-F", self.node, f"{FILE_SYSTEM >> 10}k")
        elif fs == "xfs":
            command("mkfs.xfs", "-q", "-f", "-d", f"size={FILE_SYSTEM}", self.node)
        self.where = None if fs == "raw" else self.world.mount(self.node)
        kind = DatabaseLoad if self.options.database else RawLoad if fs == "raw" else FileLoad
        self.load = kind(self.world, self.where or self.node, self.choose.randrange(1 << 32))
        self.probe = Probe(self.world, self.node)
        self.running()

    def running(self):
        mark, now = self.load.mark(), time.monotonic()
        self.await_("that the load goes on", lambda: self.load.has_advanced(mark) and self.probe.goes_on(now))

    def quiet(self, seconds):
        """A moment of load without a kill; returns the longest that an I/O of the probe took."""
        begun = time.monotonic()
        self.await_("nothing", lambda: time.monotonic() > begun + seconds, 0.05)
        return self.probe.longest(begun)

    def end(self):
        """All of the load has to have ended well, and the file system to be whole."""
        self.check_device()
        load, probe = self.load, self.probe
        self.load = self.probe = None
        load.end(self.progress)
        probe.stop()
        self.check_device()
        if self.where:
            self.unmount()
            self.where = self.world.mount(self.node)
            if wrong := load.judge():
                raise Wrong(f"{len(wrong)} are wrong: " + "; ".join(wrong[:4]))
            self.unmount()
        self.check_device()

    def unmount(self):
        self.world.unmount(self.where)
        self.where = None
        if self.fs == "ext4":
            command("e2fsck", "-fn", self.node)
        else:
            command("xfs_repair", "-n", self.node)
        self.progress.count(file_system_checks=1)

    def same_supervisor(self):
        """It keeps what it kept, and no more."""
        if (state := self.beta.list("dev-list")[0]["state"]) != "running":
            raise Wrong(f"the device is {state} after the kills")
        try:
            await_(20, "that", lambda: self.descriptors_of(self.beta) == self.descriptors, 0.1)
        except Wrong:
            raise Wrong(f"the supervisor had {self.descriptors} descriptors at the start, and has {self.descriptors_of(self.beta)}") from None


def slay(host):
    """SIGKILL of the worker; returns its process id when it is gone."""
    worker = host.worker()
    handle = os.pidfd_open(worker)
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not select.select([handle], [], [], LIMIT_S)[0]:
            raise Wrong(f"worker {worker} of {host.name} does not end after SIGKILL")
    finally:
        os.close(handle)
    return worker


def next_worker(host, old):
    await_(LIMIT_S, f"the next worker of {host.name}", lambda: (now := host.worker(False)) is not None and now != old, 0.001)


def worker_round(scene, left):
    """One kill of the device's worker, or two: the second while the next one starts, or shortly after."""
    choose = scene.choose
    time.sleep(choose.uniform(1.05, 1.6) if choose.random() < 0.8 else choose.uniform(0, 1))
    old, kind, kills = slay(scene.beta), "pause", 1
    if left > 1 and choose.random() < 0.15:
        next_worker(scene.beta, old)
        time.sleep(choose.uniform(0, 0.4))
        slay(scene.beta)
        kind, kills = "pause_of_two", 2
    return kind, kills


def both_round(scene, _left):
    """A kill of either worker, of both, or of the whole daemon of the disk."""
    choose = scene.choose
    time.sleep(choose.uniform(0.3, 1.6))
    kind = choose.choice(("disk", "device", "both", "disks_daemon"))
    if kind == "disks_daemon":
        scene.alpha.kill()
        slay(scene.alpha)
        scene.alpha.launch(*scene.words)
        return "pause_" + kind, 1
    if kind != "device":
        slay(scene.alpha)
    if kind == "both":
        time.sleep(choose.choice((0, 0.02, 0.1)))
    if kind != "disk":
        slay(scene.beta)
    return "pause_" + kind, 2 if kind == "both" else 1


def pause_round(scene, _left):
    """The worker is stopped past its lease; then it goes on, or is killed where it stands."""
    choose = scene.choose
    time.sleep(choose.uniform(0.1, 0.6))
    worker = scene.beta.worker()
    os.kill(worker, signal.SIGSTOP)
    time.sleep(choose.uniform(0.5, 2.5))
    if choose.random() < 0.25:
        slay(scene.beta)
        return "stopped_and_killed", 1
    os.kill(worker, signal.SIGCONT)
    return "stopped", 1


def upgrade_round(scene, _left):
    """Another program in the place of the worker, or the same one after SIGTERM."""
    choose = scene.choose
    time.sleep(choose.uniform(0.3, 1.2))
    old = scene.beta.worker()
    if choose.random() < 0.2:
        os.kill(old, signal.SIGTERM)
        next_worker(scene.beta, old)
        return "sigterm", 1
    program = os.path.join(scene.world.work, choose.choice(("cbdd-one", "cbdd-two")))
    if not os.path.exists(program):
        shutil.copy(CBDD, program)
    scene.beta.ctl("daemon", "upgrade", "--program", program)
    if scene.beta.worker() == old:
        raise Wrong("the worker is the old one after an upgrade")
    return "upgrade", 1


ROUNDS = {"worker": worker_round, "both": both_round, "pause": pause_round, "upgrade": upgrade_round}


def supervisor_round(scene):
    """The supervisor dies, its worker goes on. Another daemon is refused until the worker has ended, which SIGTERM does."""
    beta = scene.beta
    worker, begun = beta.worker(), time.monotonic()
    beta.kill()
    scene.await_("that the load goes on without a supervisor", lambda: scene.probe.goes_on(begun + 0.5))
    scene.running()
    pause = scene.probe.longest(begun)
    beta.launch(*scene.words)
    try:
        status = beta.process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        raise Wrong("a second daemon beside a worker without supervisor is not refused") from None
    if status == 0 or str(worker) not in beta.log_end(1):
        raise Wrong(f"a second daemon beside worker {worker} ended with exit code {status}: {beta.log_end(1)}")
    scene.end()
    handle = os.pidfd_open(worker)
    os.kill(worker, signal.SIGTERM)
    ended = select.select([handle], [], [], LIMIT_S)[0]
    os.close(handle)
    if not ended:
        raise Wrong(f"worker {worker} without supervisor does not end after SIGTERM")
    if os.path.lexists(scene.node):
        raise Wrong(f"{scene.node} is there after the end of its daemon")
    beta.start(*scene.words)
    await_(LIMIT_S, "that the device is back", lambda: [entry["state"] for entry in beta.list("dev-list")] == ["running"], 0.05)
    scene.attached(scene.node)
    scene.descriptors = scene.descriptors_of(beta)
    return pause


def rank(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def say_pauses(say, pauses):
    for kind, values in sorted(pauses.items()):
        say(f"{kind.replace('_', ' ')}: {len(values)}, median {statistics.median(values) * 1000:.0f} ms, "
            f"p90 {rank(values, 0.9) * 1000:.0f} ms, longest {max(values) * 1000:.0f} ms")


def run(progress, seed, kills, say, options):
    choose = random.Random(seed)
    systems = FILE_SYSTEMS if options.fs == "all" else (options.fs,)
    if options.database:
        systems = [fs for fs in systems if fs != "raw"] or ["ext4"]
    pauses = {}

    def note(kind, pause):
        pauses.setdefault(kind, []).append(pause)
        progress.sample(kind, [pause])

    if options.who == "guest":
        outlive_guest.run(progress, seed, kills, say, slay, note)
        say_pauses(say, pauses)
        return
    with World("outlive") as world:
        scene = Scene(world, options, choose, progress)
        supervisor = scene.beta.process.pid
        every = 1 if options.who == "supervisor" else max(1, min(EVERY, -(-kills // len(systems))))
        left, turn = kills, 0
        while left > 0:
            fs = systems[turn % len(systems)]
            turn += 1
            batch = min(every, left)
            scene.begin(fs)
            if options.who == "supervisor":
                note("supervisor", supervisor_round(scene))
                progress.count(kills=1)
                left -= 1
            else:
                note("without_a_kill", scene.quiet(min(2, kills / 10)))
                while batch > 0:
                    begun = time.monotonic()
                    kind, done = ROUNDS[options.who](scene, batch)
                    dead = time.monotonic()
                    scene.await_("that the device goes on", lambda: scene.probe.goes_on(dead))
                    note(kind, scene.probe.longest(begun))
                    scene.running()
                    scene.check()
                    progress.count(kills=done)
                    batch -= done
                    left -= done
                scene.end()
                scene.same_supervisor()
                if scene.beta.process.pid != supervisor:
                    raise Wrong("the supervisor is another one")
            progress.save()
            say(f"{fs}: {kills - left} kills done")
        scene.beta.ctl("dev-stop", "-d", "0")
        scene.beta.stop()
        scene.alpha.stop()
    say_pauses(say, pauses)
    if options.who == "worker":
        values = pauses.get("pause", [])
        good = values and statistics.median(values) <= MEDIAN_LIMIT_S and max(values) <= LONGEST_LIMIT_S
        say(f"the limits are {MEDIAN_LIMIT_S:g} s for the median and {LONGEST_LIMIT_S:g} s for the longest: {'kept' if good else 'not kept'}")
        if options.judge and not good:
            raise Wrong("a limit of the pause is not kept")


if __name__ == "__main__":
    {"probe": probe, "database": write_database}[sys.argv[1]](*sys.argv[2:])
