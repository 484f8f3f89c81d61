"""Writes benchmarks.md and its plots from the results of a run: medians of the rounds, ratios within a round."""

import os
import platform
import subprocess

import attach
import plots
import scale
from comparison import DISK, NBD
from results import MISSING, Results, percent, quantity, table, times
from samples import median
from sections import IDLE_DEVICES
from wanted import wanted


def spread(r, section, target, name, key, unit):
    values = [v for v in r.values(section, target, name, key) if v is not None]
    if not values:
        return MISSING
    middle = quantity(median(values), unit)
    return middle if len(values) == 1 else f"{middle} ({quantity(min(values), unit)} to {quantity(max(values), unit)})"


def comparison(r, section, extra=()):
    """A row per workload and target: rate, latency, and what extra adds: [(heading, function of target and workload)]."""
    rows = []
    for name in r.names(section):
        for target in r.targets(section):
            if not r.values(section, target, name, "iops"):
                continue
            large = name.startswith("1m")
            rate = spread(r, section, target, name, "mb_per_s" if large else "iops", "MB/s" if large else "IOPS")
            rows.append(
                (
                    name,
                    target,
                    rate + ("" if large else " IOPS"),
                    *(
                        quantity(r.median(section, target, name, k))
                        for k in ("mean_us", "p50_us", "p99_us", "p99_9_us", "max_us")
                    ),
                    *(f(target, name) for _, f in extra),
                )
            )
    return table(
        (
            "workload",
            "target",
            "median (lowest to highest)",
            "mean µs",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "max µs",
            *(h for h, _ in extra),
        ),
        rows,
    )


def to_floor(r, section):
    def of(target, name):
        if name.endswith("depth 1"):
            return (
                times(
                    r.ratio(
                        (section, target, name, "p50_us"), (section, target, name, lambda s: s["floor"]["copy_ns"] / 1000)
                    )
                )
                + " copy"
            )
        if name.startswith("1m"):
            return (
                percent(
                    r.ratio(
                        (section, target, name, "mb_per_s"), (section, target, name, lambda s: s["floor"]["stream_mb_per_s"])
                    )
                )
                + " stream"
            )
        if name.endswith("depth 32"):
            return percent(r.to_queue(section, target, name)) + " queue"
        raise ValueError(f"the floor measures nothing like {name}")

    def cpus(target, name):
        client, server = (r.median(section, target, name, k) for k in ("client_cpu", "server_cpu"))
        return f"{quantity(client)} + {quantity(server)}"

    def allocated(target, name):
        return " + ".join(
            f"{v:.3f}" if v is not None else "?"
            for v in (r.median(section, target, name, k) for k in ("allocated", "server_allocated"))
        )

    return [("to the floor", of), ("CPU %, client + server", cpus), ("bytes allocated per I/O, client + server", allocated)]


def unsteady(r):
    """How many in-process measurements were disturbed in every attempt: a sentence."""
    steady = [
        v
        for section in ("in-process", "in-process, large disk")
        for target in r.targets(section)
        for name in r.names(section)
        for v in r.values(section, target, name, "steady")
    ]
    return f"{steady.count(False)} of {len(steady)} measurements were disturbed in every attempt, and count as they are."


def to_nbdkit(r):
    return [
        (
            f"IOPS to {other}",
            lambda target, name, other=other: times(r.ratio(("nbd", target, name, "iops"), ("nbd", other, name, "iops"))),
        )
        for other in ("nbdkit memory", "nbdkit, two hops")
    ]


def floor(r):
    at = ("floor", "floor", "floor")
    rows = [
        (
            f"{what}",
            quantity(r.median(*at, lambda s, p=part: s[p]["p50_ns"]), "ns"),
            quantity(r.median(*at, lambda s, p=part: s[p]["mean_ns"]), "ns"),
        )
        for part, what in (
            ("line", "a cache line to the other process and one back"),
            ("copy", "the same around a 4 KiB block, copied by each side"),
        )
    ]
    rows += [
        (
            f"4 KiB blocks, 32 in flight, copied by each side, {what}",
            quantity(r.median(*at, lambda s, k=key: s.get("queue", {}).get(k)), "IOPS") + " IOPS",
            "",
        )
        for key, what in (("read_iops", "read"), ("write_iops", "written"))
    ]
    rows += [
        (what, quantity(r.median(*at, lambda s, p=part: s[p]["mb_per_s"]), "MB/s"), "")
        for part, what in (
            ("stream", "1 MiB blocks, copied by each side, four in flight"),
            ("memcpy", "memcpy, one thread, eight 1 MiB buffers in turn"),
        )
    ]
    return table(("floor", "p50", "mean"), rows)


def modes(r):
    rows = []
    for mode in "busy", "adaptive", "sleep":
        idle = [r.median("modes", mode, "idle", lambda s, i=i: s["cpu_percent"][i]) for i in (0, 1)]
        rows.append(
            (
                mode,
                quantity(r.median("modes", mode, "latency", "p50_us"), "µs"),
                spread(r, "modes", mode, "wake", "p50_us", "µs"),
                *(MISSING if i is None else f"{i:.2f} %" for i in idle),
            )
        )
    for target in NBD[:2]:
        rows.append(
            (
                f"{target} (fio)",
                quantity(r.median("nbd", target, "4k randread, depth 1", "p50_us"), "µs"),
                spread(r, "modes", target, "wake", "p50_us", "µs"),
                "",
                "",
            )
        )
    return table(
        (
            "mode",
            "4 KiB read, depth 1, p50",
            "first I/O after the pause, p50",
            "idle, the disk's daemon",
            "idle, the device's daemon",
        ),
        rows,
    )


def pairs(r):
    rows = []
    for mode in r.targets("pairs"):
        for name in "one", "two":
            rows.append(
                (
                    mode,
                    name,
                    quantity(r.median("pairs", mode, name, "iops"), "IOPS") + " IOPS",
                    quantity(r.median("pairs", mode, name, "cpu_ns_per_io"), "ns"),
                )
            )
    return table(("mode", "pairs", "all together", "CPU time per I/O, all processes"), rows)


def start_up(r):
    at = ("start-up", "cbdd", "1 GiB")
    memory = ("devices", "memory", "memory")
    rows = [
        (what, value)
        for what, value in (
            ("cbdd, from its start until it answers", milliseconds(r.median(*at, "daemon_s"))),
            (
                "`tp-reg --format` of a 1 GiB region in /dev/shm, its space had before, 128 hosts, 512 channels",
                milliseconds(r.median(*at, "format_s")),
            ),
            ("`tp-reg` of a second host on it", milliseconds(r.median(*at, "join_s"))),
            ("private memory of that host's daemon (RssAnon)", mebibytes(r.median(*at, "own_bytes"))),
            (
                f"private memory per channel, the disks' daemon ({IDLE_DEVICES} devices, {quantity(r.median(*memory, 'channels'))} channels)",
                mebibytes(r.median(*memory, lambda s: s["bytes_per_channel"][0])),
            ),
            (
                "private memory per channel, the devices' daemon",
                mebibytes(r.median(*memory, lambda s: s["bytes_per_channel"][1])),
            ),
            ("of the region per channel, as formatted there", mebibytes(r.median(*memory, "region_bytes_per_channel"))),
        )
    ]
    return table(("what", "measured"), rows)


def milliseconds(value):
    return MISSING if value is None else quantity(value * 1000, "ms")


def mebibytes(value):
    return MISSING if value is None else quantity(value / (1 << 20), "MiB")


def machine(cbdd, directory):
    """What the run was on: called on that machine, kept with the results."""

    def says(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError:
            return "?"
        return ((done.stdout or done.stderr).strip().splitlines() or ["?"])[0]

    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) // (1 << 20)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return {
        "CPU": f"{model}, {os.cpu_count()} CPUs, {says('systemd-detect-virt')}",
        "memory": f"{memory} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "file system of the raw file": says("stat", "-f", "-c", "%T", directory),
        "commit": says("git", "-C", root, "describe", "--always", "--dirty"),
        "cbdd": says(cbdd, "--version"),
        "fio": says("fio", "--version"),
        "nbdkit": says("nbdkit", "--version"),
        "qemu-nbd": says("qemu-nbd", "--version"),
        "C library": says("getconf", "GNU_LIBC_VERSION"),
        "gcc": says("gcc", "--version"),
    }


def write(results, directory):
    r, profile = Results(results["samples"]), results["profile"]
    client, server = results["cpus"]
    drawn = plots.draw(r, f"{directory}/benchmarks")
    lines = [
        "# Benchmarks",
        "",
        f"Written by `scripts/bench`, {results['began']}: medians of {profile['rounds']} interleaved rounds in one run of {results['took_s'] / 60:.0f} minutes. "
        "A ratio is the median of the ratios within each round. Ratios count: absolute numbers are this machine's, and a virtual machine's vary from day to day.",
        "",
        "## Wanted and measured",
        "",
        *wanted(r, profile),
        "## How it is measured",
        "",
        f"* In-process means: one thread a side. The client (`cbdctrl bench`, a host of its own with a blkdev in its process) is pinned to CPU {client}, "
        f"the daemon with the disk to CPU {server}. Payload CRC and mode as named; 8 MiB of the disk are used, as much as the floor touches, or as said.",
        "* The floor (`bench/floor.c`, which says exactly what it does) is measured with the same pinning right before and after each in-process measurement, "
        "while the daemon is stopped. Where the floor's cache lines are more than 25 % apart before and after, or a side that spins did not get its CPU, it is all "
        f"measured again, at most {profile['attempts'] - 1} times: a hypervisor moves virtual CPUs, and a cache line then takes several times as long. {unsteady(r)}",
        f"* NBD: fio with its nbd engine, one connection, a Unix socket, disks of {profile['nbd_size'].upper()}iB written in full before; no server and no client is pinned. "
        "CBD over NBD is two hops, from a daemon with the device to another with the disk, modes adaptive. *Two hops* of nbdkit are `nbdkit nbd` in front of `nbdkit memory`.",
        f"* Raw file: {profile['file_size'].upper()}iB, every block written before, O_DIRECT, io_uring; fio pinned as the client of CBD is, CBD with payload CRC. "
        "qemu-nbd has a file of its own, in the page cache, as it does by default.",
        f"* First I/O after a pause of {profile['think_us'] / 1e6:g} s: the latency of reads with such pauses between them. Idle is utime and stime of /proc/PID/stat "
        f"over {profile['idle_s']} s; for the modes over {profile['mode_idle_s']} s with one device.",
        "",
        "## The floor",
        "",
        *floor(r),
        "## In-process, memory disk, busy",
        "",
        *comparison(r, "in-process", to_floor(r, "in-process")),
        f"The same with {profile['large_size'].upper()}iB of the disk in use, more than the caches hold:",
        "",
        *comparison(r, "in-process, large disk", to_floor(r, "in-process, large disk")),
        "Two pairs of client and daemon, each with a region of its own, on the same two CPUs, 4 KiB random reads at depth 32. CPU time is that of all processes together; "
        "it stands for cycles where the machine shows no cycle counter to its guests. Mode busy is not judged: two clients that spin take turns on one CPU there, "
        "and what they spin while their daemon has none counts, too.",
        "",
        *pairs(r),
        "## Over NBD",
        "",
        *comparison(r, "nbd", to_nbdkit(r)),
        "## Attached to the kernel",
        "",
        *attach.section(r),
        "## Raw file",
        "",
        *comparison(
            r,
            "raw file",
            [
                (
                    "IOPS to fio",
                    lambda target, name: percent(
                        r.ratio(("raw file", target, name, "iops"), ("raw file", DISK, name, "iops"))
                    ),
                )
            ],
        ),
        "## Polling modes, wake and idle",
        "",
        *modes(r),
        "## Scale",
        "",
        *start_up(r),
        *scale.section(r),
        "## Plots",
        "",
        *(f"![{title}](benchmarks/{name})\n" for name, title in drawn),
        "## Machine",
        "",
        *table(("what", "which"), results["machine"].items()),
        "## Commands",
        "",
        "The first of each kind; workloads differ in `--rw`, `--bs`, `--iodepth`, `--size` and `--runtime`.",
        "",
        "```",
        *(line for what, command in results["commands"].items() for line in (f"# {what}", command)),
        "```",
        "",
    ]
    with open(f"{directory}/benchmarks.md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines).rstrip() + "\n")
