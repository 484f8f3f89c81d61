"""What surrounds a daemon and can be bad for a while, each a context: a file system without room, processes that get no thread."""

import contextlib
import errno
import functools
import os

FILL = "fill"
PIDS = "/sys/fs/cgroup/pids" if os.path.exists("/sys/fs/cgroup/pids/cgroup.procs") else "/sys/fs/cgroup"


def fill(where):
    """Leaves the file system no page."""
    with open(os.path.join(where, FILL), "wb", buffering=0) as file:
        # A longer write may fail although a page is left.
        for part in (256 << 10, 4 << 10):
            try:
                while True:
                    file.write(bytes(part))
            except OSError as e:
                if e.errno != errno.ENOSPC:
                    raise


@contextlib.contextmanager
def filled(where):
    try:
        fill(where)
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(where, FILL))


@contextlib.contextmanager
def no_thread(pids, name):
    """The processes have a control group of their own, with no thread more than they have; they may end meanwhile."""
    group = os.path.join(PIDS, name)
    homes = {pid: PIDS + home_of(pid) for pid in pids}
    os.mkdir(group)
    try:
        for pid in pids:
            put(group, "cgroup.procs", pid)
        with open(os.path.join(group, "pids.current"), encoding="utf-8") as file:
            put(group, "pids.max", file.read())
        yield
    finally:
        put(group, "pids.max", "max")
        for pid, home in homes.items():
            with contextlib.suppress(ProcessLookupError):
                put(home, "cgroup.procs", pid)
        os.rmdir(group)


def put(where, name, value):
    with open(os.path.join(where, name), "w", encoding="utf-8") as file:
        file.write(str(value))


def home_of(pid):
    """The control group of a process, below PIDS."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return next(path for _, kinds, path in (line.rstrip("\n").split(":", 2) for line in file) if "pids" in kinds.split(",") or PIDS == "/sys/fs/cgroup" and not kinds)


@functools.cache
def no_control_group():
    """Why there can be none; None if there can."""
    group = os.path.join(PIDS, f"cbd-{os.getpid()}")
    try:
        os.mkdir(group)
    except OSError as e:
        return f"no control group can be made in {PIDS}: {e.strerror}"
    try:
        if not os.path.exists(os.path.join(group, "pids.max")):
            return f"control groups in {PIDS} have no limit of processes"
        home = PIDS + home_of("self")
        return None if os.path.exists(home) else f"{home}, the control group of this process, is not there"
    finally:
        os.rmdir(group)
