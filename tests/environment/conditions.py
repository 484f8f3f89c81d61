"""The conditions of the matrix, by kind. Each states only what differs from 'done'."""

import contextlib
import functools
import os
import pty
import resource
import shutil
import socket
import stat
import subprocess
import threading
import time

from cells import Condition
from surroundings import fill, filled, no_control_group, no_thread
from world import MIB, Skip, Wrong

KINDS = {
    "plain": "Nothing is wrong",
    "output": "Output that cannot be written",
    "limits": "Limits, and what is inherited",
    "replaced": "Replaced",
    "unlinked": "Unlinked and truncated",
    "foreign": "Of another owner",
    "namespaces": "Namespaces",
}
NOBODY = 65534
# A user for each world that has one, because a limit of processes counts all of a user's.
USERS = iter(range(3_900_000, 4_000_000))


# Descriptors.

def kept(world, descriptor):
    world.closers.append(lambda: os.close(descriptor))
    return descriptor


def full(world):
    return kept(world, os.open("/dev/full", os.O_WRONLY))


def read_only(world):
    return kept(world, os.open("/dev/null", os.O_RDONLY))


def reader_gone(world):
    reader, writer = os.pipe()
    os.close(reader)
    return kept(world, writer)


def unread(world):
    """A pipe that is full, and that nobody reads."""
    reader, writer = os.pipe()
    kept(world, reader)
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    return kept(world, writer)


def terminal_gone(world):
    master, slave = pty.openpty()
    os.close(master)
    return kept(world, slave)


# File systems. The matrix has a mount namespace of its own.

def mounted(*names, size):
    """A function that mounts a small tmpfs at each of these directories of the world."""

    def prepare(world):
        for name in names:
            path = place(world, name)
            os.makedirs(path, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode={755 if name == 'shm' else 1777 if name == 'disks' else 700}", "none", path], check=True)
            world.closers.append(lambda path=path: subprocess.run(["umount", "-l", path]))

    return prepare


def lasting(contexts):
    """Functions that enter the contexts of a world, and leave them."""
    entered = {}

    def on(world):
        with contextlib.ExitStack() as stack:
            for context in contexts(world):
                stack.enter_context(context)
            entered[world] = stack.pop_all()

    return {"on": on, "off": lambda world: entered.pop(world).close()}


def place(world, name):
    return world.shm if name == "shm" else world.path(name)


def full_places(*names):
    """Functions that fill the file systems of these directories, and make room again."""
    return lasting(lambda world: [filled(place(world, name)) for name in names])


def read_only_over(*names):
    """Functions that lay a read-only mount of these directories over them, and take it away: files that are open stay as they are."""

    def on(world):
        for name in names:
            path = world.path(name)
            subprocess.run(["mount", "--bind", path, path], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)

    def off(world):
        for name in names:
            subprocess.run(["umount", "-l", world.path(name)], check=True)

    return {"on": on, "off": off}


# Things in the place of others.

def other_file(world, path):
    with open(path, "wb") as file:
        file.write(world.files["impostor"])


def zeros(world, path):
    with open(path, "wb") as file:
        file.truncate(16 * MIB)


def other_region(world, path):
    shutil.copyfile(os.path.join(world.shm, "rival"), path)


def directory(_, path):
    os.mkdir(path)


def link(world, path):
    os.symlink(world.path("impostor"), path)


def fifo(_, path):
    os.mkfifo(path)


def garbage(_, path):
    with open(path, "w") as file:
        file.write("not ours\n")


def listener(world, path, user=None):
    """A socket on which somebody else listens."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    if user is not None:
        os.chown(path, user, user)
    listening.listen(16)
    world.listening = listening

    def close_all():
        """Whoever connects is told nothing."""
        while True:
            try:
                listening.accept()[0].close()
            except OSError:
                return

    threading.Thread(target=close_all, daemon=True).start()


def path_of(world, name):
    return os.path.join(world.shm, name.removeprefix("shm/")) if name.startswith("shm/") else world.path(name)


def replaced(name, make, own=False):
    """
    The thing with this name is moved away and something else is made there, which nobody may change; and back. What is a daemon's own
    (own), it may replace or fill while it runs.
    """

    def on(world):
        path = path_of(world, name)
        # A thing that has ended has no socket any more.
        if os.path.lexists(path):
            os.rename(path, f"{path}.kept")
        make(world, path)
        world.guard(world.path("impostor"), *([] if own else [path]))

    def off(world):
        path = path_of(world, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        elif os.path.lexists(path):
            os.unlink(path)
        if os.path.lexists(f"{path}.kept"):
            os.rename(f"{path}.kept", path)
        if getattr(world, "listening", None):
            world.listening.shutdown(socket.SHUT_RDWR)
            world.listening.close()
            world.listening = None

    return {"when": "moments", "on": on, "off": off}


def owned(name, user, mode):
    """The thing with this name belongs to another user, with this mode; and back."""
    before = {}

    def on(world):
        path = path_of(world, name)
        status = os.lstat(path)
        before[world] = status
        os.chown(path, user, user)
        os.chmod(path, mode)

    def off(world):
        path = path_of(world, name)
        status = before.pop(world)
        os.chown(path, status.st_uid, status.st_gid)
        os.chmod(path, stat.S_IMODE(status.st_mode))

    return {"when": "moments", "on": on, "off": off}


# Limits of processes that run.

def limits_of(daemon, limit):
    names = {resource.RLIMIT_FSIZE: "Max file size", resource.RLIMIT_AS: "Max address space", resource.RLIMIT_DATA: "Max data size", resource.RLIMIT_NPROC: "Max processes"}
    with open(f"/proc/{daemon.pid}/limits") as file:
        soft, hard = next(line.removeprefix(names[limit]).split()[:2] for line in file if line.startswith(names[limit]))
    return tuple(-1 if text == "unlimited" else int(text) for text in (soft, hard))


def set_limit(daemon, limit, soft, hard):
    """As the daemon's own user: root without all capabilities may not change the limits of others."""
    user = os.stat(f"/proc/{daemon.pid}").st_uid
    if user == os.geteuid():
        resource.prlimit(daemon.pid, limit, (soft, hard))
        return
    code = f"import resource; resource.prlimit({daemon.pid}, {limit}, ({soft}, {hard}))"
    subprocess.run(["setpriv", "--reuid", str(user), "--clear-groups", "/usr/bin/python3", "-c", code], check=True)


def limited(limit, value):
    """Functions that give both daemons a limit for as long as a moment lasts; value is computed for each."""
    before = {}

    def on(world):
        for daemon in world.daemons:
            if daemon.alive():
                soft, hard = limits_of(daemon, limit)
                before[daemon] = (daemon.pid, soft, hard)
                set_limit(daemon, limit, value(daemon), hard)

    def off(world):
        for daemon in world.daemons:
            if daemon in before:
                pid, soft, hard = before.pop(daemon)
                if daemon.alive() and daemon.pid == pid:
                    set_limit(daemon, limit, soft, hard)

    return {"when": "moments", "on": on, "off": off}


def crowd_on(world):
    """Clients that are connected to the device and ask for nothing."""
    world.crowd = []
    for _ in range(140):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        try:
            client.connect(world.nbd)
        except OSError:
            client.close()
            break
        world.crowd.append(client)
    time.sleep(0.02)


def crowd_off(world):
    for client in world.crowd:
        client.close()


def address_space(daemon):
    with open(f"/proc/{daemon.pid}/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def threads(daemon):
    return len(os.listdir(f"/proc/{daemon.pid}/task"))


def data(daemon):
    with open(f"/proc/{daemon.pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmData:"))


def needs_cgroup(_):
    if reason := no_control_group():
        raise Skip(reason)


def no_more_threads():
    """Functions that let the daemons that live have no thread more, and again as many as they want."""
    return lasting(lambda world: [no_thread([daemon.pid for daemon in world.daemons if daemon.alive()], os.path.basename(os.path.dirname(world.home)))])


# Others.

def as_user(world):
    """The world's daemons are another user's, without rights."""
    user = next(USERS)
    world.user = user
    for path in (world.home, world.shm, *(os.path.join(world.home, name) for name in os.listdir(world.home)), *(os.path.join(daemon.home, "log") for daemon in world.daemons)):
        if os.path.lexists(path):
            os.chown(path, user, user)


def formatted_by_beta(world):
    """Regions that are longer than alpha's files may be."""
    for name, size in (("region", 16 * MIB), ("left", 4 * MIB)):
        world.register(world.beta, name, {"format": True, "size_bytes": size})


def others_write_nothing(world):
    for daemon in world.daemons:
        for base in (daemon.run, daemon.state):
            for name in ("", *os.listdir(base)):
                mode = os.lstat(os.path.join(base, name)).st_mode
                if mode & 0o022:
                    raise Wrong(f"others may write '{os.path.join(base, name)}', which has mode {mode & 0o777:o}")


def bystander_lives(world):
    """The process beside beta with the number that alpha has outside."""
    with open(f"/proc/{world.beta.pid}/task/{world.beta.pid}/children") as file:
        children = file.read().split()
    for child in children:
        with open(f"/proc/{child}/status") as file:
            status = dict(line.split(":", 1) for line in file.read().splitlines())
        if status["NSpid"].split()[-1] == str(world.alpha.pid) and "Z" not in status["State"]:
            return
    raise Wrong(f"the process with the number {world.alpha.pid} in beta's namespace, which nobody may end, has ended, or was not to be had")


def bystander_is_there(world):
    try:
        bystander_lives(world)
    except Wrong:
        raise Skip("the number of a process cannot be chosen here") from None


def truncated(name, size):
    return lambda world: os.truncate(path_of(world, name), size)


def removed(name):
    def on(world):
        path = path_of(world, name)
        if os.path.isdir(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    return on


def empty_directory_removed(world):
    path = world.path("gone")
    if not os.path.isdir(path):
        os.mkdir(path)
    return path


# How a namespace is entered: a process one needs a fork; its process is then the child.
def unshared(options, before=""):
    inner = f"{before} exec \"$@\"" if before else None
    return f"exec unshare {options} sh -c '{inner}' sh \"$@\"" if inner else f"exec unshare {options} \"$@\""


NO_RECORD = {"starts": "refused 5 6 8"}
# What is in reserve for stops takes a start, too.
RESERVED = {"starts": "done | refused 5"}
ctl_prints = {"prints": "warned 8"}

OUTPUT = [
    Condition("output", "log-full", "the daemons' stderr is on a full disk", stderr=full, needs=()),
    Condition("output", "log-closed", "their stderr is closed", wrap='exec "$@" 2>&-', needs=()),
    Condition("output", "log-unread", "their stderr is a full pipe that nobody reads", stderr=unread, needs=()),
    Condition("output", "log-reader-gone", "their stderr is a pipe whose reader is gone", stderr=reader_gone, needs=()),
    Condition("output", "log-terminal-gone", "their stderr is a terminal that is gone", stderr=terminal_gone, needs=()),
    Condition("output", "log-read-only", "their stderr is open for reading alone", stderr=read_only, needs=()),
    Condition("output", "stdout-full", "the command's stdout is on a full disk", who="ctl", ctl_stdout=full, verbs=ctl_prints, needs=()),
    Condition("output", "stdout-closed", "its stdout is closed", who="ctl", ctl_wrap='exec "$@" >&-', verbs=ctl_prints, needs=()),
    Condition("output", "stdout-reader-gone", "its stdout is a pipe whose reader is gone", who="ctl", ctl_stdout=reader_gone, verbs=ctl_prints, needs=()),
    Condition("output", "stdout-terminal-gone", "its stdout is a terminal that is gone", who="ctl", ctl_stdout=terminal_gone, verbs=ctl_prints, needs=()),
    Condition("output", "stderr-full", "its stderr is on a full disk", who="ctl", ctl_stderr=full, needs=()),
    Condition("output", "stderr-closed", "its stderr is closed", who="ctl", ctl_wrap='exec "$@" 2>&-', needs=()),
    Condition("output", "state-full", "the state directories' file system is full", when="moments", prepare=mounted("alpha/state", "beta/state", size="2M"),
              **full_places("alpha/state", "beta/state"), verbs=RESERVED, start="done | ended 5"),
    Condition("output", "state-full-first", "the same at the first start", prepare=lambda world: (mounted("alpha/state", "beta/state", size="64K")(world), [fill(daemon.state) for daemon in world.daemons]),
              start="ended 5"),
    Condition("output", "state-read-only", "it is mounted read-only", when="moments", prepare=mounted("alpha/state", "beta/state", size="2M"),
              **read_only_over("alpha/state", "beta/state"), verbs={**NO_RECORD, "stops": "warned 8"}, start="ended 6 8"),
    Condition("output", "state-removed", "the state directories are removed", when="once", on=lambda world: [shutil.rmtree(daemon.state) for daemon in world.daemons],
              verbs={**NO_RECORD, "stops": "warned 8"}, start="empty", needs=()),
    Condition("output", "run-read-only", "the run directories are mounted read-only", when="moments", prepare=mounted("alpha/run", "beta/run", size="1M"),
              **read_only_over("alpha/run", "beta/run"), verbs={"dev-start": "refused 6 8", "dev-stop": "done | warned 8"}, stop="done | warned 8", start="ended 6 8"),
    Condition("output", "disks-full", "the directory where disks are reserved is full", when="moments", prepare=mounted("disks", size="64K"), **full_places("disks"), verbs={"backend-start": "refused 5", "adm": "refused 5"}, start="waits"),
    Condition("output", "disks-read-only", "it is mounted read-only", when="moments", prepare=mounted("disks", size="64K"), **read_only_over("disks")),
    Condition("output", "region-full", "the regions' tmpfs is full", when="moments", prepare=mounted("shm", size="30M"), **full_places("shm"), verbs={"tp-reg": "refused 5"}),
]

LIMITS = [
    Condition("limits", "file-size", "files may not become longer than 512 KiB (RLIMIT_FSIZE), of alpha", who="alpha", wrap='ulimit -f 1024; exec "$@"', started=formatted_by_beta,
              load="errors", verbs={"tp-reg": "refused 2 5 8"}, needs=()),
    Condition("limits", "file-size-0", "files may not have a byte", wrap='ulimit -f 0; exec "$@"', stderr=unread, start="ended 5", needs=()),
    Condition("limits", "file-size-later", "the limit becomes 0 while they run", **limited(resource.RLIMIT_FSIZE, lambda _: 0), load="errors",
              verbs={**NO_RECORD, "stops": "done | warned 8", "backend-resize": "refused 2 5 8"}, stop="done | warned 8", needs=()),
    Condition("limits", "descriptors-64", "the least number of descriptors (RLIMIT_NOFILE)", wrap='ulimit -n 64; exec "$@"', verbs={"starts": "done | refused 5"}, needs=()),
    Condition("limits", "descriptors-63", "one less", wrap='ulimit -n 63; exec "$@"', start="ended 5", needs=()),
    Condition("limits", "descriptors-used-up", "clients of the device have all descriptors that they can get", wrap='ulimit -n 96; exec "$@"', when="moments", on=crowd_on, off=crowd_off,
              load="done | unserved", needs=()),
    Condition("limits", "threads", "no thread can be had (pids control group)", when="moments", prepare=needs_cgroup, **no_more_threads(), verbs={"starts": "refused 5"}),
    Condition("limits", "processes", "the same for another user (RLIMIT_NPROC)", prepare=as_user, verbs={"starts": "refused 5"},
              wrap='user=$(stat -c %u {home}); exec setpriv --reuid "$user" --clear-groups "$@"', **limited(resource.RLIMIT_NPROC, threads)),
    Condition("limits", "stack-128K", "the main thread has a stack of 128 KiB (RLIMIT_STACK)", wrap='ulimit -s 128; exec "$@"', needs=()),
    Condition("limits", "stack-unlimited", "its stack has no limit", wrap='ulimit -s unlimited; exec "$@"', needs=()),
    Condition("limits", "memlock-0", "no memory may be locked (RLIMIT_MEMLOCK)", wrap='ulimit -l 0; exec "$@"', needs=()),
    Condition("limits", "address-space-400M", "little address space (RLIMIT_AS)", wrap='ulimit -v 400000; exec "$@"', start="ended 5", needs=()),
    Condition("limits", "address-space-later", "no more address space while they run", **limited(resource.RLIMIT_AS, address_space), load="done | errors",
              verbs={"starts": "done | refused 5"}, needs=()),
    Condition("limits", "data-later", "no more private memory while they run (RLIMIT_DATA)", **limited(resource.RLIMIT_DATA, data), load="done | errors | unserved",
              verbs={"clears": "refused 4 5 8", "*": "done | refused 5 8"}, needs=()),
    Condition("limits", "no-core-no-queues", "no core, no queued signals, no message queues, lowest priority", wrap='exec nice -n 19 prlimit --core=0 --sigpending=0 --msgqueue=0 "$@"', needs=()),
    Condition("limits", "signals-ignored", "all signals are ignored", wrap='exec env --ignore-signal "$@"', needs=()),
    Condition("limits", "signals-blocked", "all signals are blocked", wrap='exec env --block-signal "$@"', needs=()),
    Condition("limits", "umask-777", "the umask is 777", wrap='umask 777; exec "$@"', needs=()),
    Condition("limits", "umask-0", "the umask is 0: others may write nothing all the same", wrap='umask 0; exec "$@"', extra=others_write_nothing, needs=()),
    Condition("limits", "descriptors-closed", "descriptors 0 to 2 are closed", wrap='exec "$@" <&- >&- 2>&-', needs=()),
    Condition("limits", "no-proc", "/proc is not there", wrap=unshared("-m", "mount -t tmpfs none /proc;"), start="ended 10"),
    Condition("limits", "no-urandom", "/dev/urandom is not there", wrap=unshared("-m", "mount -t tmpfs none /dev; mkdir /dev/shm;"), start="ended 10"),
    Condition("limits", "command-file-size-0", "the command may write no file", who="ctl", ctl_wrap='ulimit -f 0; exec "$@"', needs=()),
    Condition("limits", "command-descriptors-20", "it has 20 descriptors", who="ctl", ctl_wrap='ulimit -n 20; exec "$@"', verbs={"*": "done | refused 4 5"}, needs=()),
    Condition("limits", "command-stack-128K", "it has a stack of 128 KiB", who="ctl", ctl_wrap='ulimit -s 128; exec "$@"', needs=()),
    Condition("limits", "command-signals-ignored", "it ignores all signals", who="ctl", ctl_wrap='exec env --ignore-signal "$@"', needs=()),
    Condition("limits", "command-umask-777", "its umask is 777", who="ctl", ctl_wrap='umask 777; exec "$@"', needs=()),
    Condition("limits", "command-descriptors-closed", "its descriptors 0 to 2 are closed", who="ctl", ctl_wrap='exec "$@" <&- >&- 2>&-', verbs=ctl_prints, needs=()),
    Condition("limits", "command-no-proc", "it has no /proc", who="ctl", ctl_wrap=unshared("-m", "mount -t tmpfs none /proc;")),
]

served = {"backend-start": ("backend-start", "-p", "{home}/disk")}


def one_backend_more(world, before, after):
    """By another id: the path is that of the other one, too."""
    return before.get(key := ("backend", world.region, world.path("disk"))) != after.get(key)


joined = {"tp-reg": ("tp-reg", "-H", "alpha", "-p", "{shm}/region")}
NO_DAEMON = {"*": "refused 11"}
REPLACED = [
    Condition("replaced", "disk-by-file", "another file has the name of the served disk", **replaced("disk", other_file), rival="disk.kept", words=served, effects={"backend-start": one_backend_more}, heals="device",
              verbs={"backend-start": "refused 4 | done"}, start="waits"),
    Condition("replaced", "disk-by-link", "a link to another file has it", **replaced("disk", link), rival="disk.kept", words=served, effects={"backend-start": one_backend_more}, verbs={"backend-start": "refused 4 | done"}, start="waits", needs=()),
    Condition("replaced", "disk-by-directory", "a directory has it", **replaced("disk", directory), rival="disk.kept", words=served, verbs={"backend-start": "refused 2 10"}, start="waits", needs=()),
    Condition("replaced", "disk-by-fifo", "a fifo has it", **replaced("disk", fifo), rival="disk.kept", words=served, verbs={"backend-start": "refused 2 10"}, start="waits", needs=()),
    Condition("replaced", "region-by-zeros", "a file of zeros has the name of the region", **replaced("shm/region", zeros), words=joined, verbs={"tp-reg": "refused 4 7"}, start="waits", needs=()),
    Condition("replaced", "region-by-region", "another region has it", **replaced("shm/region", other_region), words=joined, verbs={"tp-reg": "refused 4 7"}, start="waits", needs=()),
    Condition("replaced", "control-by-file", "a file has the name of alpha's control socket", **replaced("alpha/run/cbdd.sock", garbage), verbs={"alpha": "refused 11"}, start="ended 4", who="alpha", needs=()),
    Condition("replaced", "control-by-listener", "somebody else listens there", **replaced("alpha/run/cbdd.sock", listener), verbs={"alpha": "refused 7 8"}, start="ended 4", who="alpha", needs=()),
    Condition("replaced", "control-by-link", "a link to a file is there", **replaced("alpha/run/cbdd.sock", link), verbs={"alpha": "refused 11"}, start="ended 4", who="alpha", needs=()),
    Condition("replaced", "run-by-directory", "another directory has the name of alpha's run directory", **replaced("alpha/run", directory, own=True), verbs={"alpha": "refused 11"}, who="alpha", heals="", needs=()),
    Condition("replaced", "record-by-garbage", "something else is in the file of alpha's record", **replaced("alpha/state/wanted.json", garbage, own=True), start="ended 7", who="alpha", needs=()),
    Condition("replaced", "record-by-link", "a link to another file is there", **replaced("alpha/state/wanted.json", link, own=True), start="ended 4 7", who="alpha", needs=()),
    Condition("replaced", "record-by-directory", "a directory is there", **replaced("alpha/state/wanted.json", directory), verbs={"tp-reg": "refused 8", "backend-start": "refused 8", "adm": "refused 8", "backend-stop": "warned 8", "tp-unreg": "warned 8"}, start="ended 7", who="alpha", needs=()),
    Condition("replaced", "uuid-by-garbage", "something else is in the file of alpha's uuid", **replaced("alpha/state/host-uuid", garbage), start="ended 7", who="alpha", needs=()),
    Condition("replaced", "locks-by-files", "other files have the names of alpha's locks", when="moments", on=lambda world: [replaced(f"alpha/{d}/lock", garbage, own=True)["on"](world) for d in ("run", "state")],
              off=lambda world: [replaced(f"alpha/{d}/lock", garbage)["off"](world) for d in ("run", "state")], who="alpha", needs=()),
    Condition("replaced", "nbd-by-file", "a file has the name of the device's socket", **replaced("beta/run/main.nbd", garbage), start="waits", who="beta", needs=()),
    Condition("replaced", "nbd-by-listener", "somebody else listens there", **replaced("beta/run/main.nbd", listener), start="waits", who="beta", needs=()),
    Condition("replaced", "nbd-new-by-file", "a file has the name of the socket of a device that is started", **replaced("beta/run/third.nbd", garbage), verbs={"dev-start": "refused 4"}, needs=()),
    Condition("replaced", "nbd-new-by-link", "a link to a file has it", **replaced("beta/run/third.nbd", link), verbs={"dev-start": "refused 4"}, needs=()),
    Condition("replaced", "nbd-new-by-listener", "somebody listens there", **replaced("beta/run/third.nbd", listener), verbs={"dev-start": "refused 4"}, needs=()),
]

UNLINKED = [
    Condition("unlinked", "disk", "the served disk's file is removed", when="once", on=removed("disk"), reports="was removed", start="waits", needs=()),
    Condition("unlinked", "disk-truncated", "the served disk becomes shorter", when="once", on=truncated("disk", MIB // 2), load="errors", reports="became shorter", start="done | waits", needs=()),
    Condition("unlinked", "region", "the region's file is removed", when="once", on=removed("shm/region"), reports="was removed", start="waits", needs=()),
    Condition("unlinked", "region-truncated", "the region becomes shorter", when="once", on=truncated("shm/region", 4096), load="errors", start="waits",
              verbs={"tp-reg": "done", "wait": "refused 8", "clears": "refused 8", "dev-start": "refused 3 8", "starts": "refused 8", "backend-resize": "refused 3 8", "dev-stop": "refused 3 8", "backend-stop": "refused 3 8"},
              stop="done | warned 8", needs=()),
    Condition("unlinked", "control-socket", "alpha's control socket is removed", when="once", on=removed("alpha/run/cbdd.sock"), verbs={"alpha": "refused 11"}, needs=()),
    Condition("unlinked", "nbd-socket", "the device's socket is removed", when="once", on=removed("beta/run/main.nbd"), needs=()),
    Condition("unlinked", "run-directory", "alpha's run directory is removed", when="once", on=removed("alpha/run"), verbs={"alpha": "refused 11"}, needs=()),
    Condition("unlinked", "disks-directory", "the directory where disks are reserved is removed", when="once", on=removed("disks"), needs=()),
    Condition("unlinked", "working-directory", "the daemons' working directory is removed", wrap='mkdir -p gone; cd gone; rmdir ../gone; exec "$@"', needs=()),
    Condition("unlinked", "command-working-directory", "the command's is", who="ctl", ctl_wrap='mkdir -p gone.$$; cd gone.$$; rmdir ../gone.$$; exec "$@"', words={"backend-start": ("backend-start", "-p", "new")},
              verbs={"backend-start": "refused 2"}, needs=()),
]


def foreign_region(mode):
    def prepare(world):
        path = os.path.join(world.shm, "foreign")
        with open(path, "wb") as file:
            file.truncate(4 * MIB)
        os.chown(path, NOBODY, NOBODY)
        os.chmod(path, mode)
        world.guard(path)

    return prepare


def foreign_directory(name, lock=None):
    """A directory that another user made, before a daemon is started with it; perhaps with a link in it."""

    def prepare(world):
        path = world.path(name)
        os.mkdir(path)
        victim = world.path("victim")
        garbage(world, victim)
        world.guard(victim)
        if lock:
            os.symlink(victim, os.path.join(path, lock))
        os.chown(path, NOBODY, NOBODY)
        os.chmod(path, 0o777)
        world.guard(path)

    return prepare


def own_directory(name, file, make):
    """A directory of the daemon's own user, with a thing of somebody else in it."""

    def prepare(world):
        path = world.path(name)
        os.mkdir(path, 0o700)
        victim = world.path("victim")
        garbage(world, victim)
        os.chown(victim, NOBODY, NOBODY)
        make(world, os.path.join(path, file))
        if getattr(world, "listening", None):
            world.closers.append(lambda: (world.listening.shutdown(socket.SHUT_RDWR), world.listening.close()))
        world.guard(victim, os.path.join(path, file))

    return prepare


def to_victim(world, path):
    os.symlink(world.path("victim"), path)


def foreign_file(_, path):
    garbage(_, path)
    os.chown(path, NOBODY, NOBODY)


def foreign_listener(world, path):
    listener(world, path, NOBODY)


taken = {"tp-reg": ("tp-reg", "-H", "alpha", "-p", "{shm}/foreign", "--format")}
FOREIGN = [
    Condition("foreign", "disk", "the disk is another user's, whom root serves", **owned("disk", NOBODY, 0o666)),
    Condition("foreign", "region-new", "a region that another user made, with mode 0666, is formatted", prepare=foreign_region(0o666), words=taken, verbs={"tp-reg": "refused 4 6"}),
    Condition("foreign", "region-new-600", "the same with mode 0600", prepare=foreign_region(0o600), words=taken, verbs={"tp-reg": "refused 4 6"}),
    Condition("foreign", "region", "the region becomes another user's: the next life refuses it", **owned("shm/region", NOBODY, 0o666), start="waits"),
    Condition("foreign", "run", "alpha's run directory is another user's", prepare=foreign_directory("alpha/run"), start="ended 4 6", who="alpha"),
    Condition("foreign", "run-lock", "and 'lock' in it is a link to a file of others", prepare=foreign_directory("alpha/run", "lock"), start="ended 4 6", who="alpha"),
    Condition("foreign", "run-later", "the run directory becomes another user's: the next life refuses it", **owned("alpha/run", NOBODY, 0o777), start="ended 4 6", who="alpha"),
    Condition("foreign", "state", "alpha's state directory is another user's", prepare=foreign_directory("alpha/state"), start="ended 4 6", who="alpha"),
    Condition("foreign", "state-lock", "and 'lock' in it is a link to a file of others", prepare=foreign_directory("alpha/state", "lock"), start="ended 4 6", who="alpha"),
    Condition("foreign", "state-uuid", "'host-uuid' in it is a link to a file of others", prepare=foreign_directory("alpha/state", "host-uuid"), start="ended 4 6 7", who="alpha"),
    Condition("foreign", "own-lock-link", "'lock' in alpha's own run directory is a link to a file of others", prepare=own_directory("alpha/run", "lock", to_victim), start="ended 4 6", who="alpha"),
    Condition("foreign", "own-lock", "it is a file of another user", prepare=own_directory("alpha/run", "lock", foreign_file), start="ended 4 6", who="alpha"),
    Condition("foreign", "own-state-lock-link", "'lock' in its own state directory is a link to a file of others", prepare=own_directory("alpha/state", "lock", to_victim), start="ended 4 6", who="alpha"),
    Condition("foreign", "own-record", "the record in it is a file of another user", prepare=own_directory("alpha/state", "wanted.json", foreign_file), start="ended 4 6 7", who="alpha"),
    Condition("foreign", "control-link", "the name of the control socket is a link to a file of others", prepare=own_directory("alpha/run", "cbdd.sock", to_victim), start="ended 4 6", who="alpha"),
    Condition("foreign", "control-socket", "it is a socket on which another user listens", prepare=own_directory("alpha/run", "cbdd.sock", foreign_listener), start="ended 4 6", who="alpha"),
    Condition("foreign", "nbd-socket", "the name of a device's socket is one on which another user listens", **replaced("beta/run/third.nbd", foreign_listener), verbs={"dev-start": "refused 4 6"}),
    Condition("foreign", "nbd-link", "it is a link to a file of others", **replaced("beta/run/third.nbd", link), verbs={"dev-start": "refused 4 6"}),
    Condition("foreign", "daemons", "the daemons are another user's, and root asks them", prepare=as_user, wrap='user=$(stat -c %u {home}); exec setpriv --reuid "$user" --clear-groups "$@"'),
    Condition("foreign", "command", "the command is a user's who may not ask", who="ctl", ctl_wrap=f'exec setpriv --reuid {NOBODY} --clear-groups "$@"', verbs={"*": "refused 6 11"}),
]


def namespace(name, what, options, before="", **more):
    return Condition("namespaces", name, what, wrap=unshared(options, before), **{"who": "alpha", **more})


NAMESPACES = [
    namespace("process", "alpha has a process namespace of its own, and the outer /proc", "--pid --fork --kill-child"),
    namespace("process-proc", "the same with a /proc of its own", "--pid --fork --kill-child --mount-proc"),
    namespace("process-both", "both have one, so that each is number 1", "--pid --fork --kill-child --mount-proc", who="both"),
    namespace("mount", "alpha has a mount namespace of its own", "-m"),
    namespace("user", "alpha has a user namespace of its own", "--user --map-root-user"),
    namespace("network", "alpha has a network namespace of its own", "--net"),
    namespace("network-both", "both have one", "--net", who="both"),
    namespace("time", "alpha's clocks are 11 days ahead", "--time --boottime 1000000 --monotonic 1000000 --fork --kill-child"),
    namespace("time-back", "beta's clock of the boot is behind", "--time --boottime -30 --monotonic -30 --fork --kill-child", who="beta"),
    namespace("names", "alpha has names and IPC of its own", "--uts --ipc --cgroup"),
    namespace("boot-id", "alpha sees another boot id: it is taken for another machine", "-m", "cat /proc/sys/kernel/random/uuid >boot-id; mount --bind boot-id /proc/sys/kernel/random/boot_id;"),
    namespace("container", "alpha has all of them", "--pid --fork --kill-child --mount-proc --net --uts --ipc --cgroup"),
    Condition("namespaces", "bystander", "beta has a process namespace, the outer /proc, and beside it a process with alpha's number: host-clear --force ends neither", who="beta",
              wrap=unshared("--pid --fork --kill-child", "echo $(({alpha} - 1)) >/proc/sys/kernel/ns_last_pid; sleep 1000 & "), started=bystander_is_there, extra=bystander_lives,
              words={"host-clear": ("host-clear", "-t", "{main}", "--host-id", "{host}", "--force")}, verbs={"host-clear": "refused 6"}),
    Condition("namespaces", "command-process", "the command has a process namespace of its own", who="ctl", ctl_wrap=unshared("--pid --fork --kill-child")),
    Condition("namespaces", "command-mount", "a mount namespace", who="ctl", ctl_wrap=unshared("-m")),
    Condition("namespaces", "command-user", "a user namespace", who="ctl", ctl_wrap=unshared("--user --map-root-user")),
    Condition("namespaces", "command-network", "a network namespace, names and IPC", who="ctl", ctl_wrap=unshared("--net --uts --ipc")),
    Condition("namespaces", "command-time", "other clocks", who="ctl", ctl_wrap=unshared("--time --boottime 1000000 --monotonic 1000000 --fork --kill-child")),
]

CONDITIONS = [Condition("plain", "plain", "nothing is wrong", needs=()), *OUTPUT, *LIMITS, *REPLACED, *UNLINKED, *FOREIGN, *NAMESPACES]


@functools.cache
def can_unshare(options):
    return subprocess.run(["unshare", *options.split(), "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def unavailable(condition):
    """Why a condition cannot be had here; None if it can."""
    if "root" in condition.needs and os.geteuid() != 0:
        return "needs root"
    for wrap in (condition.wrap, condition.ctl_wrap or ""):
        if wrap.startswith("exec unshare "):
            options = wrap.removeprefix("exec unshare ").split(" sh -c ")[0].removesuffix(' "$@"')
            if not can_unshare(options):
                return f"'unshare {options}' is not possible here"
    return None
