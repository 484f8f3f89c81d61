"""Switches of what surrounds a daemon, each a context: bad while it lasts, good again after it; and a clock that can be set."""

import contextlib
import errno
import functools
import os
import resource
import shutil
import socket
import struct

from hosts import FILL, await_, command

PIDS = "/sys/fs/cgroup/pids" if os.path.exists("/sys/fs/cgroup/pids/cgroup.procs") else "/sys/fs/cgroup"


@contextlib.contextmanager
def filled(where):
    """The file system is full, to its last page."""
    path = os.path.join(where, FILL)
    try:
        with open(path, "wb", buffering=0) as file:
            for part in (256 << 10, 4 << 10):
                try:
                    while True:
                        file.write(bytes(part))
                except OSError as e:
                    if e.errno != errno.ENOSPC:
                        raise
        yield
    finally:
        os.unlink(path)


@contextlib.contextmanager
def no_descriptor(host):
    """All descriptors below the limit of the host's daemon are taken, those that it keeps for such a time, too: where there are gaps,
    silent clients of the control socket have them."""
    pid = host.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    clients = []

    def is_dense():
        taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        if len(taken) == max(taken) + 1:
            return len(taken)
        if len(clients) < 64:
            client = socket.socket(socket.AF_UNIX)
            clients.append(client)
            client.connect(os.path.join(host.run_dir, "cbdd.sock"))
        return 0

    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (await_(30, f"that daemon {host.name} has no gap in its descriptors", is_dense, 0.02), before[1]))
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        for client in clients:
            client.close()


@contextlib.contextmanager
def no_thread(pid, name):
    """The process has a control group of its own, with no thread more than it has."""
    group = os.path.join(PIDS, name)

    def put(where, file, text):
        with open(os.path.join(where, file), "w", encoding="utf-8") as control:
            control.write(text)

    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        home = next(path for _, kinds, path in (line.rstrip("\n").split(":", 2) for line in file) if "pids" in kinds.split(",") or PIDS == "/sys/fs/cgroup" and not kinds)
    os.mkdir(group)
    try:
        put(group, "cgroup.procs", str(pid))
        with open(os.path.join(group, "pids.current"), encoding="utf-8") as file:
            put(group, "pids.max", file.read())
        yield
    finally:
        put(group, "pids.max", "max")
        put(PIDS + home, "cgroup.procs", str(pid))
        os.rmdir(group)


@functools.cache
def no_control_group():
    """Why there can be none; None if there can."""
    group = os.path.join(PIDS, f"cbd-torture-{os.getpid()}")
    try:
        os.mkdir(group)
    except OSError as e:
        return f"no control group can be made in {PIDS}: {e.strerror}"
    try:
        return None if os.path.exists(os.path.join(group, "pids.max")) else f"control groups in {PIDS} have no limit of processes"
    finally:
        os.rmdir(group)


class Clock:
    """The wall clock of daemons that have its environment: that of the machine, and an offset in seconds."""

    def __init__(self, library, path):
        self.path = path
        self.environment = {"LD_PRELOAD": library, "CBD_TORTURE_CLOCK": path}
        with open(path, "wb") as file:
            file.write(bytes(8))

    @classmethod
    def make(cls, world):
        """Compiles the library that moves the clock; None if there is no compiler."""
        compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
        if not compiler:
            return None
        library = world.path("clock.so")
        command(compiler, "-shared", "-fPIC", "-O2", "-o", library, os.path.join(os.path.dirname(os.path.abspath(__file__)), "clock.c"), "-ldl")
        return cls(library, world.path("clock"))

    @property
    def offset(self):
        with open(self.path, "rb") as file:
            return struct.unpack("=q", file.read(8))[0]

    @offset.setter
    def offset(self, seconds):
        with open(self.path, "r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))
