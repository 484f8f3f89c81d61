"""What is measured, section by section, one round at a time. Each section starts its daemons, or takes those of the
whole run, and adds samples to the results; the report knows the sections and targets by the names given here."""

import json
import os
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

from attach import attach
from comparison import DISK, HOT, NBD, stopped
from processes import Daemon, Failed
from samples import Workload, by_fio, of_bench, text
from scale import scale

IDLE_DEVICES = 16
CRC = {"CRC on": "on", "CRC off": "off"}


def floor(run):
    with run.place.alone():
        run.add("floor", "floor", "floor", run.floor("line,copy,queue,stream,memcpy", run.profile["floor_s"], what="floor"))


HEADLINE = [
    ("randread", "4k", 1),
    ("randwrite", "4k", 1),
    ("randread", "4k", 32),
    ("randwrite", "4k", 32),
    ("read", "1m", 4),
    ("write", "1m", 4),
]


def in_process(run):
    """Memory disks, mode busy, one thread a side, pinned; each measurement beside the floor."""
    for target, crc in CRC.items():
        with run.pair("busy", "memory:1G", "--payload-crc", crc) as (daemon, backend):
            run.fill_backend(daemon, backend, HOT)
            for rw, bs, depth in HEADLINE:
                workload = Workload(rw, bs, depth, HOT)
                with run.place.alone():
                    sample = run.beside_floor(
                        daemon, lambda: run.bench(daemon, backend, workload, "busy", what="in-process")
                    )
                run.add("in-process", target, text(workload), sample)
            # The same where the disk is larger than every cache.
            run.fill_backend(daemon, backend, run.profile["large_size"])
            for rw, bs, depth in HEADLINE[::2]:
                workload = Workload(rw, bs, depth, run.profile["large_size"])
                with run.place.alone():
                    sample = run.beside_floor(daemon, lambda: run.bench(daemon, backend, workload, "busy"))
                run.add("in-process, large disk", target, text(workload), sample)


def pairs(run):
    """One pair of client and daemon, then two at once, each with a region of its own, on the same two CPUs."""
    workload = Workload("randread", "4k", 32, HOT)
    for mode in "busy", "adaptive":
        with run.pair(mode, "memory:8M", name="pair-a") as (a, a_backend), run.pair(mode, "memory:8M", name="pair-b") as (
            b,
            b_backend,
        ):
            for daemon, backend in (a, a_backend), (b, b_backend):
                run.fill_backend(daemon, backend, HOT)
            with run.place.alone():
                # The other daemon would spin beside the one pair.
                with stopped(b):
                    one = run.bench(a, a_backend, workload, mode, what=None)
                with ThreadPoolExecutor(2) as threads:
                    two = list(
                        threads.map(
                            lambda p: run.bench(p[0], p[1], workload, mode, what=None), ((a, a_backend), (b, b_backend))
                        )
                    )
            run.add("pairs", mode, "one", cpu_cost([one]))
            run.add("pairs", mode, "two", cpu_cost(two))


def cpu_cost(samples):
    """IOPS of all together, and CPU time of all per I/O: ns."""
    iops = sum(s["iops"] for s in samples)
    percent = sum(s["client_cpu"] + (s["server_cpu"] or 0) for s in samples)
    return {"iops": iops, "cpu_ns_per_io": percent / 100 * 1e9 / iops}


def over_nbd(run):
    for rw, bs, depth in HEADLINE:
        for target in NBD:
            workload = Workload(rw, bs, depth, run.profile["nbd_size"])
            run.nbd()
            with run.place.alone():
                run.add("nbd", target, text(workload), run.fio_nbd(target, workload))


def raw_file(run):
    """A file on the disk, O_DIRECT: fio's io_uring on it, and CBD in-process with it behind, which holds its lock."""
    file = run.file()
    for rw in "randread", "randwrite":
        for depth in 1, 32:
            workload = Workload(rw, "4k", depth, run.profile["file_size"])
            with run.place.alone():
                sample = by_fio(
                    run.place,
                    run.fio_engine(),
                    workload,
                    run.profile["run_s"],
                    run.profile["ramp_s"],
                    run.place.client_cpu,
                    "fio on the file",
                )
            run.add("raw file", DISK, text(workload), sample)
            for mode in "busy", "adaptive":
                with run.pair(mode, file) as (daemon, backend), run.place.alone():
                    run.add("raw file", f"CBD, {mode}", text(workload), run.bench(daemon, backend, workload, mode))


def sweeps(run):
    """IOPS over depth and bandwidth over block size, for the plots."""
    profile = run.profile
    run.nbd()
    points = [("depth", Workload("randread", "4k", depth, profile["nbd_size"]), depth) for depth in profile["depths"]]
    points += [("block size", Workload("read", bs, 4, profile["nbd_size"]), bs) for bs in profile["block_sizes"]]
    for target, crc in CRC.items():
        with run.pair("busy", f"memory:{profile['nbd_size'].upper()}", "--payload-crc", crc) as (daemon, backend):
            run.fill_backend(daemon, backend, profile["nbd_size"])
            for section, workload, x in points:
                with run.place.alone():
                    run.add(
                        section,
                        f"CBD in-process, {target}",
                        str(x),
                        run.bench(daemon, backend, workload, "busy", profile["sweep_s"]),
                    )
    for section, workload, x in points:
        for target in NBD:
            with run.place.alone():
                run.add(section, target, str(x), run.fio_nbd(target, workload, profile["sweep_s"]))
        with run.place.alone():
            run.add(
                section,
                DISK,
                str(x),
                by_fio(
                    run.place,
                    run.fio_engine(),
                    workload._replace(size=profile["file_size"]),
                    profile["sweep_s"],
                    profile["ramp_s"],
                    run.place.client_cpu,
                ),
            )


def modes(run):
    """Per polling mode: latency without a pause, of the first I/O after an idle second, and CPU time of an idle device."""
    profile = run.profile
    for mode in "busy", "adaptive", "sleep":
        with run.pair(mode, "memory:64M") as (alpha, backend):
            run.fill_backend(alpha, backend, HOT)
            workload = Workload("randread", "4k", 1, HOT)
            with run.place.alone():
                run.add("modes", mode, "latency", run.bench(alpha, backend, workload, mode))
            with run.place.alone():
                report = alpha.bench(
                    "-b",
                    backend,
                    "--rw",
                    "randread",
                    "--bs",
                    "4k",
                    "--size",
                    HOT,
                    "--thinktime",
                    profile["think_us"],
                    "--runtime",
                    profile["think_run_s"],
                    "--mode",
                    mode,
                    cpu=run.place.client_cpu,
                    what="first I/O after a pause",
                )
                run.add("modes", mode, "wake", of_bench(report, f"with pauses, mode {mode}"))
            beta = Daemon(run.place, "beta", run.place.client_cpu)
            try:
                beta.register(run.place.region("alpha"))
                beta.ctl("dev-start", "--attach", "none", "-b", backend, "--queues", 1, "--mode", mode)
                with run.place.alone():
                    run.add("modes", mode, "idle", idle((alpha, beta), profile["mode_idle_s"]))
            finally:
                beta.stop()
    for target in "CBD over NBD", "nbdkit memory":
        workload = Workload("randread", "4k", 1, profile["nbd_size"])
        run.nbd()
        with run.place.alone():
            sample = run.fio_nbd(target, workload, profile["think_run_s"], [f"--thinktime={profile['think_us']}"])
        run.add("modes", target, "wake", sample)


def idle(daemons, seconds):
    time.sleep(min(1, seconds))
    before = [d.cpu_s() for d in daemons]
    # The one sleep that is the thing measured.
    time.sleep(seconds)
    return {"seconds": seconds, "cpu_percent": [100 * (d.cpu_s() - b) / seconds for d, b in zip(daemons, before)]}


def start_up(run):
    """A 1 GiB region of 128 hosts and 512 channels in /dev/shm, its space had before: formatting it, and a second host that joins."""
    path = run.place.region("1g")
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 30)
    alpha, beta = Daemon(run.place, "start-alpha"), Daemon(run.place, "start-beta")
    try:
        with run.place.alone():
            began = time.monotonic()
            alpha.register(path, "--format", "--hosts", 128, "--channels", 512, what="1 GiB region")
            formatted = time.monotonic()
            beta.register(path)
            joined = time.monotonic()
        run.add(
            "start-up",
            "cbdd",
            "1 GiB",
            {
                "daemon_s": alpha.start_s,
                "format_s": formatted - began,
                "join_s": joined - formatted,
                "own_bytes": beta.own_memory_bytes(),
            },
        )
    finally:
        alpha.stop()
        beta.stop()
        os.remove(path)


def many_devices(run):
    """16 devices with a connected client each, which did one read: memory per channel, and CPU time of idle daemons."""
    place = run.place
    alpha, beta = Daemon(place, "idle-alpha", place.server_cpu), Daemon(place, "idle-beta", place.client_cpu)
    clients = []
    try:
        region = place.region("idle")
        alpha.register(region, "--format", "--size", "512M", "--channels", "64")
        beta.register(region)
        before = [d.own_memory_bytes() for d in (alpha, beta)]
        for _ in range(IDLE_DEVICES):
            backend = alpha.ctl("backend-start", "-p", "memory:16M")
            clients.append(connect(beta.ctl("dev-start", "--attach", "none", "-b", backend, what="devices, idle").split("socket=")[1]))
        channels = [c for c in json.loads(beta.ctl("channel-list", "-o", "json")) if c["state"] == "attached"]
        if not channels:
            raise Failed(f"channel-list shows no attached channel of {IDLE_DEVICES} devices")
        after = [d.own_memory_bytes() for d in (alpha, beta)]
        run.add(
            "devices",
            "memory",
            "memory",
            {
                "devices": IDLE_DEVICES,
                "channels": len(channels),
                "bytes_per_channel": [(a - b) / len(channels) for a, b in zip(after, before)],
                "region_bytes_per_channel": json.loads(alpha.ctl("tp-list", "-o", "json"))[0]["bytes_per_channel"],
            },
        )
        with place.alone():
            run.add("devices", "idle", "idle", idle((alpha, beta), run.profile["idle_s"]))
    finally:
        for client in clients:
            client.close()
        beta.stop()
        alpha.stop()


def connect(path):
    """An NBD client (newstyle, NBD_OPT_EXPORT_NAME of the default export) that reads 4 KiB and stays connected."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(path)

    def receive(count):
        data = b""
        while len(data) < count:
            part = client.recv(count - len(data))
            if not part:
                raise Failed(f"{path}: the NBD server closed the connection")
            data += part
        return data

    receive(18)
    # Flags: fixed newstyle, no zeroes; then IHAVEOPT, option 1, an empty name.
    client.sendall(struct.pack(">IQII", 3, 0x49484156454F5054, 1, 0))
    receive(10)
    client.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 0, 1, 0, 4096))
    _, error, _ = struct.unpack(">IIQ", receive(16))
    if error != 0:
        raise Failed(f"{path}: NBD read failed with error {error}")
    receive(4096)
    return client


# In this order within a round; those of ONCE are done once in a run: plots, and what needs no median of rounds.
SECTIONS = {
    "floor": floor,
    "in-process": in_process,
    "pairs": pairs,
    "nbd": over_nbd,
    "attach": attach,
    "raw-file": raw_file,
    "sweeps": sweeps,
    "modes": modes,
    "start-up": start_up,
    "devices": many_devices,
    "scale": scale,
}
ONCE = ("sweeps", "modes", "start-up", "devices", "scale")
