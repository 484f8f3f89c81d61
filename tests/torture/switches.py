"""More of what surrounds a daemon than surroundings.py has: no descriptor, while the context lasts; and a clock that can be set."""

import contextlib
import os
import resource
import shutil
import socket
import struct

from hosts import await_, command


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
