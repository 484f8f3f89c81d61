"""The section 'attach': block devices of this machine's kernel. CBD's kind fuse (a file over /dev/fuse and a loop device
on it, two daemons, a memory disk) beside the same of others: nbdfuse and a loop device on 'nbdkit memory'."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

from processes import Daemon, Server
from results import MISSING, met, quantity, table, times
from samples import Workload, by_fio, text

OURS, THEIRS = "CBD, attached by fuse", "nbdfuse + loop on nbdkit memory"
WORKLOADS = [("randread", "4k", 1), ("randwrite", "4k", 1), ("randread", "4k", 32), ("randwrite", "4k", 32), ("read", "1m", 4), ("write", "1m", 4)]
# Depth: ratio of IOPS that is wanted.
LIMITS = {1: 1.0, 32: 2.0}
REGION = ("--format", "--size", "256M", "--channels", "16")


def why_not():
    """Why this machine cannot have such devices now; None if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    for node in "/dev/fuse", "/dev/loop-control":
        if not os.path.exists(node):
            return f"there is no {node}"
    for tool in "nbdfuse", "losetup":
        if not shutil.which(tool):
            return f"there is no {tool}"
    return None


def attach(run):
    """Both devices are there at once; each workload is measured on one right after the other."""
    reason = why_not()
    if reason:
        print(f"bench: attach is left out: {reason}", flush=True)
        return
    profile = run.profile
    with ours(run) as device, theirs(run) as loop:
        nodes = {OURS: device, THEIRS: loop}
        for node in nodes.values():
            run.place.run(["dd", "if=/dev/urandom", f"of={node}", "bs=1M", f"count={profile['nbd_size'][:-1]}", "oflag=direct", "status=none"])
        for rw, bs, depth in WORKLOADS:
            workload = Workload(rw, bs, depth, profile["nbd_size"])
            with run.place.alone():
                for target, node in nodes.items():
                    engine = ["--ioengine=io_uring", "--direct=1", f"--filename={node}"]
                    sample = by_fio(run.place, engine, workload, profile["run_s"], profile["ramp_s"], what=f"fio, {target}")
                    run.add("attach", target, text(workload), sample)


@contextmanager
def ours(run):
    place, size = run.place, run.profile["nbd_size"].upper()
    alpha, beta = Daemon(place, "attach-alpha"), Daemon(place, "attach-beta")
    try:
        region = place.region("attach")
        alpha.register(region, *REGION, "--force", what="region, attached device")
        beta.register(region)
        backend = alpha.ctl("backend-start", "-p", f"memory:{size}", what="backend, attached device")
        yield beta.ctl("dev-start", "-b", backend, "--attach", "fuse", "--name", place.device, what="device, attached by fuse")
        beta.ctl("dev-stop", "-d", 0)
    finally:
        beta.stop()
        alpha.stop()


@contextmanager
def theirs(run):
    place = run.place
    mount, loop = place.path("nbdfuse"), None
    os.makedirs(mount, exist_ok=True)
    server = Server(place, "nbdkit-attach", ["nbdkit", "-f", "-U", "SOCKET", "memory", run.profile["nbd_size"]], what="nbdkit below nbdfuse")
    command = ["nbdfuse", mount, "--unix", server.socket]
    place.remember("nbdfuse", command)
    fuse = place.start(command, log="nbdfuse.log")
    try:
        place.await_ready("nbdfuse", fuse, lambda: os.path.exists(f"{mount}/nbd"))
        loop = place.run(["losetup", "--find", "--show", "--direct-io=on", f"{mount}/nbd"], what="loop device on nbdfuse").strip()
        yield loop
    finally:
        if loop:
            subprocess.run(["losetup", "-d", loop], check=False)
        # It is busy as long as the loop device has not let go of the file.
        for _ in range(50):
            if subprocess.run(["umount", mount], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        place.end(fuse)
        server.stop()


def wanted_rows(r):
    """Rows of the table wanted / measured / met."""
    rows = []
    for rw, bs, depth in WORKLOADS:
        if depth in LIMITS:
            name = text(Workload(rw, bs, depth, None))
            ratio = r.ratio(("attach", OURS, name, "iops"), ("attach", THEIRS, name, "iops"))
            rows.append((f"attached by fuse + loop: {name}", f"≥ {LIMITS[depth]:.1f} × {THEIRS}", times(ratio), met(ratio, LIMITS[depth])))
    return rows


def section(r):
    """The lines of the report."""
    rows = []
    for name in r.names("attach"):
        for target in OURS, THEIRS:
            values = [v for v in r.values("attach", target, name, "iops") if v is not None]
            rows.append(
                (
                    name,
                    target,
                    quantity(r.median("attach", target, name, "iops"), "IOPS") + " IOPS",
                    f"{quantity(min(values), 'IOPS')} to {quantity(max(values), 'IOPS')}" if values else MISSING,
                    quantity(r.median("attach", target, name, "p50_us")),
                    quantity(r.median("attach", target, name, "p99_us")),
                    times(r.ratio(("attach", target, name, "iops"), ("attach", THEIRS, name, "iops"))),
                )
            )
    head = ("workload", "target", "median", "lowest to highest", "p50 µs", "p99 µs", "IOPS to nbdfuse")
    return [
        "Block devices of this machine's kernel, fio with io_uring and direct I/O on them; neither programs nor daemons are pinned.",
        "",
        *(table(head, rows) if rows else [f"{MISSING}: it needs root, /dev/fuse, loop devices and nbdfuse.", ""]),
    ]
