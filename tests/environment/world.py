"""The world of one condition: two daemons, a region, a served disk with a model of its bytes, and things that are not theirs."""

import errno
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import time

from nbd_client import NbdClient, Refused

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CBDD = os.path.abspath(os.environ.get("CBDD", os.path.join(ROOT, "out", "cbdd")))
CBDCTRL = os.path.abspath(os.environ.get("CBDCTRL", os.path.join(ROOT, "out", "cbdctrl")))
# A bound of everything that is waited for, far above what it takes; it is no measure.
LIMIT_S = float(os.environ.get("CBD_ENVIRONMENT_LIMIT_S", 45))
BEAT_MS = 100
MIB = 1 << 20
DISK_BYTES = MIB
SMALL_BYTES = 64 << 10
PLAIN = 'exec "$@"'
DOCUMENTED_CODES = {0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
TRACE = re.compile(r"Unhandled|this is a bug|please report|^ +at \S+\(|\bat Cbd\.", re.MULTILINE)


# Daemons that may run; a matrix that is told to end ends them.
LIVE = set()


class Wrong(Exception):
    """What a cell states does not hold."""


class Skip(Exception):
    """This condition cannot be had here."""


class Connection(http.client.HTTPConnection):
    def __init__(self, path, limit_s=LIMIT_S):
        super().__init__("cbdd", timeout=limit_s)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def await_that(what, holds, limit_s=LIMIT_S):
    end = time.monotonic() + limit_s
    pause = 0.01
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > end:
            raise Wrong(f"{what} did not happen in {limit_s:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


def fingerprint(path):
    """What must not change of a thing that is not the product's: kind, rights, owner, identity, content."""
    try:
        status = os.lstat(path)
    except OSError as e:
        return (errno.errorcode[e.errno],)
    content = None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    elif stat.S_ISDIR(status.st_mode):
        content = tuple(sorted(os.listdir(path)))
    return (stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_ino, content)


def second_name(path, name):
    try:
        os.link(path, name)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        # On a file system of its own, whose things nobody replaces.
        os.symlink(path, name)


class Daemon:
    def __init__(self, world, name):
        self.world, self.name = world, name
        self.home = os.path.join(world.home, name)
        self.run = os.path.join(self.home, "run")
        self.state = os.path.join(self.home, "state")
        self.log = os.path.join(self.home, "log")
        # A second name of the control socket, for what the matrix itself asks: the first is replaced and removed.
        self.link = os.path.join(self.home, "link")
        self.process = self.pid = self.connection = None
        os.makedirs(self.home, exist_ok=True)

    def launch(self, wrap=PLAIN, stderr=None):
        """Starts it; stderr is a descriptor, or the log."""
        with open(self.log, "ab") as log, open(os.path.join(self.home, "stdout"), "ab") as out:
            self.process = subprocess.Popen(
                ["sh", "-c", wrap, "sh", self.world.cbdd, "--run-dir", self.run, "--state-dir", self.state, "--disks-dir", self.world.disks,
                 "--beat-ms", str(BEAT_MS), "--fence-ms", "6000", "--dead-ms", "10000"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=log if stderr is None else stderr, cwd=self.home)
        LIVE.add(self)
        self.pid = self.process.pid
        self.wrap = wrap

    def ready(self):
        """Waits until it answers, then returns None, or its exit code if it ended."""

        def answers():
            code = self.process.poll()
            if code is not None:
                return (code,)
            # Not for long: somebody else may listen there, until the daemon does or ends.
            connection = Connection(os.path.join(self.run, "cbdd.sock"), 1)
            try:
                connection.request("GET", "/v1/transports")
                connection.getresponse().read()
                return (None,)
            except (OSError, http.client.HTTPException):
                return None
            finally:
                connection.close()

        code, = await_that(f"that {self.name} answers or ends", answers)
        if code is not None:
            return code
        if "--fork" in self.wrap:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
                self.pid = int(file.read().split()[0])
        self.forget_link()
        second_name(os.path.join(self.run, "cbdd.sock"), self.link)
        return None

    def forget_link(self):
        if self.connection:
            self.connection.close()
            self.connection = None
        if os.path.lexists(self.link):
            os.unlink(self.link)

    def ask(self, method, path, body=None):
        """Asks the control API; returns the HTTP status and what was answered."""
        for attempt in (1, 2):
            try:
                if self.connection is None:
                    self.connection = Connection(self.link)
                self.connection.request(method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"})
                response = self.connection.getresponse()
                text = response.read()
                return response.status, json.loads(text) if text else None
            except (OSError, http.client.HTTPException) as e:
                if self.connection:
                    self.connection.close()
                self.connection = None
                if attempt == 2 or isinstance(e, TimeoutError):
                    raise Wrong(f"{self.name} does not answer {method} {path}: {e or type(e).__name__}") from e

    def must(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        if status >= 300:
            raise Wrong(f"{self.name}: {method} {path}: {answer.get('detail') if isinstance(answer, dict) else answer}")
        return answer

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def ended(self):
        """Waits for its end; returns the exit code."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            raise Wrong(f"{self.name} does not end within {LIMIT_S:.0f} s") from None

    def signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        if self.alive():
            for pid in {self.pid, self.process.pid}:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.process.wait()
        LIVE.discard(self)

    def text(self):
        with open(self.log, errors="replace") as file:
            return file.read()


class World:
    def __init__(self, home, shm, cbdd, cbdctrl, seed):
        self.home, self.shm, self.cbdd, self.cbdctrl = home, shm, cbdd, cbdctrl
        self.random = random.Random(seed)
        os.makedirs(home)
        os.makedirs(shm)
        self.disks = self.path("disks")
        self.region = os.path.join(shm, "region")
        self.files = {}
        for name, size in (("disk", DISK_BYTES), ("grow", SMALL_BYTES), ("old", SMALL_BYTES), ("spare", SMALL_BYTES), ("new", SMALL_BYTES), ("adm", SMALL_BYTES), ("impostor", DISK_BYTES)):
            self.files[name] = self.random.randbytes(size)
            with open(self.path(name), "wb") as file:
                file.write(self.files[name])
        self.model = bytearray(self.files["disk"])
        # Ranges whose write was answered with an error: old or new.
        self.open = []
        self.disk = os.open(self.path("disk"), os.O_RDONLY)
        self.guarded = {}
        self.closers = []
        self.alpha, self.beta = Daemon(self, "alpha"), Daemon(self, "beta")
        self.daemons = (self.alpha, self.beta)
        self.log_seen = dict.fromkeys(self.daemons, 0)
        # What a daemon had after the last look: nothing may change between two moments.
        self.last = {}

    def path(self, *names):
        return os.path.join(self.home, *names)

    def close(self):
        for daemon in self.daemons:
            daemon.kill()
            daemon.forget_link()
        for closer in reversed(self.closers):
            try:
                closer()
            except OSError:
                pass
        os.close(self.disk)
        shutil.rmtree(self.shm, ignore_errors=True)
        shutil.rmtree(self.home, ignore_errors=True)

    # What is built before the condition, or under it if it is there from the start.

    def register(self, daemon, name, options=None):
        return daemon.must("POST", "/v1/transports", {"host": daemon.name, "path": os.path.join(self.shm, name), **(options or {})})["transport_id"]

    def build(self):
        """Regions, backends and devices that the verbs and the load need."""
        # A region that somebody formatted needs no format: what cannot make a large file may use one.
        for name, size in (("region", 16 * MIB), ("left", 4 * MIB), ("rival", 4 * MIB)):
            daemon = self.beta if name == "rival" else self.alpha
            transport = self.register(daemon, name, None if os.path.exists(os.path.join(self.shm, name)) else {"format": True, "size_bytes": size})
            if name == "rival":
                self.rival = transport
        self.main = next((t["transport_id"] for t in self.beta.must("GET", "/v1/transports") if t["path"] == self.region), None)
        if self.main is None:
            self.main = self.register(self.beta, "region")
        self.backends = {}
        for name in ("disk", "grow", "old", "spare"):
            self.backends[name] = self.alpha.must("POST", "/v1/transports/0/backends", {"path": self.path(name), "name": name})["backend_id"]
        for name, backend in (("main", "disk"), ("second", "grow")):
            self.beta.must("POST", f"/v1/transports/{self.main}/devices", {"backend_id": self.backends[backend], "name": name, "attach": "none", "queues": 1})
        self.link_device()
        self.hosts = {host["hostname"]: host["host_id"] for host in self.alpha.must("GET", "/v1/transports/0/hosts")}
        self.devices = {device["name"]: device["blkdev_id"] for device in self.beta.must("GET", f"/v1/transports/{self.main}/devices")}

    def link_device(self):
        self.nbd = self.path("nbd")
        if os.path.lexists(self.nbd):
            os.unlink(self.nbd)
        second_name(os.path.join(self.beta.run, "main.nbd"), self.nbd)

    # What is there.

    def things(self, daemon):
        """What a daemon has, by what identifies it, in words that can be compared."""
        found = {}
        for transport in daemon.must("GET", "/v1/transports"):
            number = transport["transport_id"]
            found["transport", transport["path"], transport["path"]] = transport
            for backend in daemon.must("GET", f"/v1/transports/{number}/backends"):
                found["backend", transport["path"], backend["backend_path"]] = backend
            for device in daemon.must("GET", f"/v1/transports/{number}/devices"):
                found["device", transport["path"], device["name"]] = device
        return found

    def shape(self, daemon):
        return {key: value.get("blkdev_id", (value.get("backend_id"), value.get("size_bytes"))) for key, value in self.things(daemon).items()}

    # What must hold everywhere.

    def guard(self, *paths):
        """These are not the product's: no cell may change them."""
        for path in paths:
            self.guarded[path] = fingerprint(path)

    def unguard(self, *paths):
        for path in paths:
            self.guarded.pop(path, None)

    def check(self, ended=()):
        """The invariants of every cell."""
        for daemon in self.daemons:
            if daemon.process is not None and daemon not in ended and not daemon.alive():
                raise Wrong(f"{daemon.name} ended with exit code {daemon.process.poll()}: {daemon.text()[-300:].strip()}")
            with open(daemon.log, "rb") as file:
                file.seek(self.log_seen[daemon])
                said = file.read()
            self.log_seen[daemon] += len(said)
            self.check_text(f"the log of {daemon.name}", said.decode(errors="replace"))
        self.check_disk()
        for name in ("grow", "old", "spare", "new", "adm", "impostor"):
            if os.path.isfile(self.path(name)) and not os.path.islink(self.path(name)):
                with open(self.path(name), "rb") as file:
                    if file.read(len(self.files[name])) != self.files[name]:
                        raise Wrong(f"the bytes of the file '{name}', which nobody writes, changed")
        for path, was in list(self.guarded.items()):
            if (now := fingerprint(path)) != was:
                # One cell says so.
                self.unguard(path)
                raise Wrong(f"{path}, which is not the product's, was {was} and is {now}")

    def check_disk(self):
        """The bytes of the served file, whatever its name is now, are the model's."""
        have = os.pread(self.disk, DISK_BYTES, 0)
        want = bytes(self.model[:len(have)])
        if have != want:
            for offset in range(0, len(have), 4096):
                block = slice(offset, offset + 4096)
                if have[block] != want[block] and not any(start <= offset < start + len(data) and have[block] == data[offset - start:offset - start + 4096] for start, data in self.open):
                    raise Wrong(f"the disk has other bytes at {offset} than were written")

    @staticmethod
    def check_text(what, text):
        if found := TRACE.search(text):
            line = text[text.rfind("\n", 0, found.start()) + 1:].split("\n", 1)[0]
            raise Wrong(f"{what} has a stack trace or a bug: {line[:300]}")

    # What is done.

    def ctl(self, daemon, words, wrap=None, stdout=None, stderr=None, cwd=None):
        """Runs cbdctrl; returns its exit code and what it printed. With stdout or stderr, a descriptor, that part is empty."""
        command = [self.cbdctrl, "--run-dir", daemon.run, *words]
        if wrap:
            command = ["sh", "-c", wrap, "sh", *command]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if stdout is None else stdout,
                                   stderr=subprocess.PIPE if stderr is None else stderr, cwd=cwd or self.home)
        try:
            out, said = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Wrong(f"cbdctrl {words[0]} hangs: no end within {LIMIT_S:.0f} s") from None
        out, said = ((text or b"").decode(errors="replace") for text in (out, said))
        self.check_text(f"cbdctrl {words[0]}", said)
        if process.returncode not in DOCUMENTED_CODES:
            raise Wrong(f"cbdctrl {words[0]} has exit code {process.returncode}, which is not documented: {said.strip()[:300]}")
        return process.returncode, out, said

    def load(self):
        """Writes, a flush and reads through the device; returns 'done', 'errors' if a request failed, or 'unserved' if there is no server."""
        failed = []

        def attempt(what, action):
            try:
                return action()
            except Refused as e:
                failed.append(f"{what}: {e}")
                return None

        try:
            with NbdClient(self.nbd, LIMIT_S) as client:
                for _ in range(12):
                    # Some at the end: that is what is missing of a file that became shorter, or may not become longer.
                    offset = self.random.randrange(DISK_BYTES // 4096 - 4) * 4096
                    data = self.random.randbytes(4096 * self.random.randint(1, 4))
                    self.open.append((offset, data))
                    if attempt("write", lambda: client.write(offset, data) or True):
                        self.model[offset:offset + len(data)] = data
                        self.open.pop()
                attempt("flush", client.flush)
                for offset in range(0, DISK_BYTES, DISK_BYTES // 8):
                    got = attempt("read", lambda: client.read(offset, DISK_BYTES // 8))
                    if got is not None and not self.open and got != self.model[offset:offset + len(got)]:
                        raise Wrong(f"a read at {offset} gave other bytes than were written")
        except TimeoutError:
            raise Wrong(f"a request of a client has no answer within {LIMIT_S:.0f} s") from None
        except OSError as e:
            return f"unserved ({e})"
        return f"errors ({failed[0]})" if failed else "done"

    def rival_is_refused(self, path):
        """The disk is offered to a second region: a second writer, which has to be refused."""
        status, answer = self.beta.ask("POST", f"/v1/transports/{self.rival}/backends", {"path": path})
        if status < 300:
            self.beta.ask("POST", f"/v1/transports/{self.rival}/backends/{answer['backend_id']}/stop", {})
            raise Wrong(f"a second writer got the served disk, as {path}")
        return answer
