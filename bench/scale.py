"""The section 'scale': a transport whose 128 hosts and 512 channels are all in use, every host a daemon of this machine."""

import json
import os
import signal
import time

from processes import Daemon, Failed
from results import MISSING, quantity, table
from samples import Workload, by_fio, median

BACKENDS_EACH, DEVICES_EACH, QUEUES_EACH = 2, 2, 2
RATE = Workload("randread", "4k", 32, "16m")


def scale(run):
    """Each host serves two memory disks and has devices on the two of the next host, with two queues each."""
    place, hosts = run.place, run.profile["scale_hosts"]
    counts = {"hosts": hosts, "backends": hosts * BACKENDS_EACH, "blkdevs": hosts * DEVICES_EACH, "channels": hosts * DEVICES_EACH * QUEUES_EACH}
    daemons, region = [], place.region("scale")
    try:
        for number in range(hosts):
            daemons.append(Daemon(place, f"scale-{number}"))
        joined = [elapsed(lambda d=d, o=options: d.register(region, *o, what=f"{hosts} hosts" if o else None))
                  for d, options in zip(daemons, [formats(counts), *[()] * (hosts - 1)])]
        backends = {d: [d.ctl("backend-start", "-p", "memory:16M") for _ in range(BACKENDS_EACH)] for d in daemons}
        started, uris = [], {}
        for number, daemon in enumerate(daemons):
            for backend in backends[daemons[(number + 1) % hosts]]:
                start = ["dev-start", "--attach", "none", "--queues", QUEUES_EACH, "-b", backend]
                started.append(elapsed(lambda d=daemon, s=start: uris.setdefault(d, []).append(d.ctl(*s))))
        states = [c["state"] for c in json.loads(daemons[0].ctl("channel-list", "-o", "json"))]
        if states != ["attached"] * counts["channels"]:
            raise Failed(f"of {counts['channels']} channels {states.count('attached')} are attached")
        sample = {"join_s": median(joined[1:]), "start_s": median(started), "own_bytes": median(d.own_memory_bytes() for d in daemons), **counts}
        with place.alone():
            sample["idle_percent"] = idle_percent(daemons, run.profile["scale_idle_s"])
        sample["list_s"] = median(elapsed(lambda: daemons[0].ctl("dev-list", "--all")) for _ in range(5))
        with place.alone():
            engine = ["--ioengine=nbd", f"--uri={uris[daemons[0]][0]}"]
            sample["iops"] = by_fio(place, engine, RATE, run.profile["run_s"], run.profile["ramp_s"])["iops"]
        sample["clear_s"] = elapsed(lambda: kill_and_await(daemons[-1], daemons[0], hosts - 1))
        run.add("scale", "cbdd", "all in use", sample)
    finally:
        place.end(*[d.process for d in daemons])


def formats(counts):
    return ["--format", "--size", f"{counts['channels'] * 3 // 4 + 16}M", "--channel-size", "512K", *(str(part) for name, count in counts.items() for part in (f"--{name}", count))]


def elapsed(action):
    began = time.monotonic()
    action()
    return time.monotonic() - began


def idle_percent(daemons, seconds):
    """CPU time of all daemons together, percent of one core."""
    before = sum(d.cpu_s() for d in daemons)
    # The one sleep that is the thing measured.
    time.sleep(seconds)
    return 100 * (sum(d.cpu_s() for d in daemons) - before) / seconds


def kill_and_await(daemon, other, left):
    """Until nothing of a killed host is left but the records of disks that devices wait for."""
    os.kill(daemon.process.pid, signal.SIGKILL)
    limit = time.monotonic() + 30
    while len(json.loads(other.ctl("host-list", "-o", "json"))) != left:
        if time.monotonic() > limit:
            raise Failed("a killed host is still there after 30 s")
        time.sleep(0.01)


def section(r):
    """The lines of the report."""
    at = ("scale", "cbdd", "all in use")
    hosts = r.median(*at, "hosts")
    if hosts is None:
        return [MISSING + ".", ""]
    milliseconds = {what: quantity(r.median(*at, key) * 1000, "ms") for what, key in (("join", "join_s"), ("start", "start_s"), ("list", "list_s"), ("clear", "clear_s"))}
    rows = [
        ("`tp-reg` of a host, median", milliseconds["join"]),
        ("`dev-start` of a device with two queues, median", milliseconds["start"]),
        ("`dev-list --all`", milliseconds["list"]),
        ("private memory of a daemon (RssAnon), median", quantity(r.median(*at, "own_bytes") / (1 << 20), "MiB")),
        ("all daemons idle, together", f"{r.median(*at, 'idle_percent'):.1f} % of a core"),
        ("one device meanwhile, fio over NBD, 4 KiB random reads, depth 32", quantity(r.median(*at, "iops"), "IOPS") + " IOPS"),
        ("a daemon is killed: until its host is cleared", milliseconds["clear"]),
    ]
    return [
        f"{hosts:.0f} hosts, each a daemon of this machine that serves {BACKENDS_EACH} memory disks and has {DEVICES_EACH} devices on those of another; "
        f"all {r.median(*at, 'channels'):.0f} channels are attached:",
        "",
        *table(("what", "measured"), rows),
    ]
