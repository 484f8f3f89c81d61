"""Surroundings that turn bad and good again while daemons serve: full file systems of log, state, region and a disk, no descriptor or
thread to be had, a clock that jumps. While it is bad the device whose disk is well goes on, and every verb ends with an exit code of
its documentation; stops are done. When it is good again, all verbs are."""

import calendar
import contextlib
import os
import re
import resource
import socket
import sys
import time

from hosts import Wrong, await_
from switches import Clock, no_descriptor

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from surroundings import filled, no_control_group, no_thread  # noqa: E402

# A bound of every verb; it is no measure. cbdctrl itself gives up after 30 s without an answer.
VERB_S = 60
HOUR = 3600
JUMPS = (-400 * 24 * HOUR, -3 * 24 * HOUR, -7 * HOUR, -HOUR, 0, HOUR, 7 * HOUR, 3 * 24 * HOUR, 400 * 24 * HOUR)
LOST = re.compile(r"(\d+) log line\(s\) were lost")


class Weather:
    """The surroundings of a scene, which it has from its first daemon on."""

    def __init__(self, scene, world, choose):
        self.scene, self.world, self.choose = scene, world, choose
        self.refused = 0
        self.shm = world.tmpfs("shm", "80M")
        self.place = world.tmpfs("disk-place", "12M")
        # What cleans up looks for the region there.
        world.region = os.path.join(self.shm, "region")
        self.clock = Clock.make(world)

    def surround(self, host):
        """Log and state of a daemon that is not started yet are on small file systems of their own, and its clock can be set."""
        place = self.world.tmpfs(f"{host.name}/log-place", "8M")
        host.log, host.log_place = os.path.join(place, "log"), place
        host.state = self.world.tmpfs(f"{host.name}/state", "32M")
        if self.clock:
            host.environment = self.clock.environment

    def unavailable(self, name):
        if name == "jump-the-clock":
            return None if self.clock else "there is no C compiler for the library that moves a daemon's clock"
        return no_control_group() if name == "use-up-threads" else None

    # What is tried in all of them.

    def verb(self, allowed, host, *words):
        """Runs a verb that must end soon with an exit code that is allowed."""
        start = time.monotonic()
        status, out, err = host.try_ctl(*words)
        if status not in allowed:
            raise Wrong(f"{host.name}: cbdctrl {' '.join(words)}: exit code {status}, not {' or '.join(map(str, sorted(allowed)))}: {err}")
        if (took := time.monotonic() - start) > VERB_S:
            raise Wrong(f"{host.name}: cbdctrl {' '.join(words)} took {took:.0f} s")
        self.refused += status != 0
        return out if status == 0 else None

    def start_and_stop(self, allowed={0}):
        """A backend, and a device on it; what is not allowed to fail is stopped again."""
        alpha, beta = self.scene.alpha, self.scene.beta
        backend = self.verb(allowed, alpha, "backend-start", "-p", "null:1G", "--read-only")
        if backend is not None:
            if self.verb(allowed, beta, "dev-start", "-b", backend, "--attach", "none") is not None:
                self.verb({0}, beta, "dev-stop", "-d", self.device_on(backend))
            self.verb({0}, alpha, "backend-stop", "-b", backend)

    def device_on(self, backend):
        return next(str(entry["blkdev_id"]) for entry in self.scene.beta.list("dev-list") if entry["backend_id"] == int(backend))

    def endure(self, trouble, allowed={0}, during=lambda: None):
        """The trouble comes and goes; starts may end as allowed while it is there."""
        scene = self.scene
        backend = scene.alpha.ctl("backend-start", "-p", "null:1G", "--read-only")
        scene.beta.ctl("dev-start", "-b", backend, "--attach", "none")
        device = self.device_on(backend)
        with trouble:
            scene.must_be_well()
            for host in (scene.alpha, scene.beta):
                self.verb({0}, host, "tp-list")
            self.start_and_stop(allowed)
            during()
            time.sleep(self.choose.choice((0, 0.3, 2)))
            for _ in range(self.choose.randrange(3)):
                self.verb({0}, self.either(), "dev-list")
            self.verb({0}, scene.beta, "dev-stop", "-d", device)
            self.verb({0}, scene.alpha, "backend-stop", "-b", backend)
            scene.must_be_well()
        self.start_and_stop()

    def either(self):
        return self.choose.choice((self.scene.alpha, self.scene.beta))

    # The faults.

    def fill_the_log(self):
        """What it could not write, the daemon counts, and says so when it can."""
        host = self.either()
        lost = self.log_lost(host)
        start = os.path.getsize(host.log)

        @contextlib.contextmanager
        def full_log():
            with filled(host.log_place):
                # The log's last page has room, which lines of the daemon would fit into.
                with open(host.log, "ab", buffering=0) as log:
                    log.write(b"\n" * (-os.path.getsize(host.log) % resource.getpagesize()))
                yield

        self.endure(full_log())
        lost = self.log_lost(host) - lost
        if lost == 0:
            raise Wrong(f"the log of {host.name} was full, and no line was lost")

        def said():
            with open(host.log, encoding="utf-8", errors="replace") as log:
                log.seek(start)
                return sum(int(count) for count in LOST.findall(log.read())) == lost
        await_(30, f"that the log of {host.name} says that {lost} lines were lost", said, 0.1)

    @staticmethod
    def log_lost(host):
        return host.list("tp-list", "-o", "json")[0]["log_lost"]

    def fill_the_state(self):
        """The record has space in reserve, which each change gives up and takes again."""
        host = self.either()
        reserve = os.path.join(host.state, "wanted.reserve")
        before = os.stat(reserve).st_ino

        def must_be_used():
            if os.path.exists(reserve) and os.stat(reserve).st_ino == before:
                raise Wrong(f"the state directory of {host.name} is full, and {reserve} was not used")
        self.endure(filled(host.state), {0, 5}, must_be_used)
        if not os.path.exists(reserve):
            raise Wrong(f"the state directory of {host.name} has room again, and {reserve} is not there")

    def use_up_descriptors(self):
        host, refused, greeted = self.either(), self.refused, []
        self.endure(no_descriptor(host), {0, 5}, lambda: greeted.append(self.greet()))
        if self.refused == refused and all(greeted):
            raise Wrong(f"{host.name} had a descriptor for each start and a new NBD client although it could have none")
        await_(30, "that a new NBD client is served", self.greet)

    def greet(self):
        """Whether a new client of the second device is greeted; it may also wait, or be turned away."""
        path = self.scene.uri.split("socket=")[1]
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(path)
                return client.recv(8) == b"NBDMAGIC"
        except OSError:
            return False

    def use_up_threads(self):
        host, refused = self.either(), self.refused
        self.endure(no_thread([host.process.pid], f"{os.path.basename(self.world.work)}-{host.name}"), {0, 5})
        if self.refused == refused:
            raise Wrong(f"{host.name} had a thread for a start although it could have none")

    def jump_the_clock(self):
        """Both daemons' clocks jump, and stay there until the next jump."""
        before = self.clock.offset
        offset = self.clock.offset = self.choose.choice([jump for jump in JUMPS if jump != before])
        self.endure(contextlib.nullcontext())
        for host in (self.scene.alpha, self.scene.beta):
            seen = [line[:19] for line in host.log_end(20).split(" | ") if line[:2] == "20"][-1]
            want = time.time() + offset
            if abs(calendar.timegm(time.strptime(seen, "%Y-%m-%dT%H:%M:%S")) - want) > 600:
                raise Wrong(f"the clock of {host.name} is at {seen}, which is not {offset} s away: the library that moves it has no effect")
            if any(entry["state"] != "running" for entry in host.list("tp-list")):
                raise Wrong(f"{host.name}: a transport does not run after the clock jumped by {offset - before} s")

    def fill_the_region(self):
        """The region has all its space; another one beside it gets none, and is not there afterwards."""
        alpha, other = self.scene.alpha, os.path.join(self.shm, "other")
        more = ("tp-reg", "-H", "alpha", "-p", other, "--format", "--size", "4M")
        self.endure(filled(self.shm), during=lambda: self.verb({5}, alpha, *more))
        if os.path.lexists(other):
            raise Wrong(f"{other} is there after it could not be formatted")
        self.verb({0}, alpha, *more)
        self.verb({0}, alpha, "tp-unreg", "-t", other)
        os.unlink(other)

    def fill_a_disk(self):
        """A disk on a tmpfs that is full has errors, and none when there is room again."""
        scene = self.scene
        path = os.path.join(self.place, "disk")
        with open(path, "wb") as file:
            file.truncate(8 << 20)
        disk = scene.alpha.ctl("backend-start", "-p", path)
        uri = scene.beta.ctl("dev-start", "-b", disk, "--attach", "none")
        device = self.device_on(disk)

        def must_fail():
            if scene.write_all(uri) == 0:
                raise Wrong("no write failed although the file system of the disk is full")

        self.endure(filled(self.place), during=must_fail)
        if (status := scene.write_all(uri)) != 0:
            raise Wrong(f"fio ended with exit code {status} when the file system of its disk had room again")
        scene.beta.ctl("dev-stop", "-d", device)
        scene.alpha.ctl("backend-stop", "-b", disk)
        os.unlink(path)
