"""Writes benchmarks.md and its plots from the results of a run: medians of the rounds, ratios within a round."""

import os
import platform
import subprocess

import plots
from samples import median
from sections import DISK, IDLE_DEVICES, NBD

MISSING = "not measured"


class Results:
    """The samples of a run; each question about what was not measured is answered with None."""

    def __init__(self, samples):
        self._samples = samples

    def values(self, section, target, name, key):
        found = self._samples.get(section, {}).get(target, {}).get(name, [])
        return [key(s) if callable(key) else s.get(key) for s in found]

    def median(self, section, target, name, key):
        return median(self.values(section, target, name, key))

    def ratio(self, above, below):
        """The median of the rounds' ratios of two questions (section, target, name, key)."""
        return median(a / b for a, b in zip(self.values(*above), self.values(*below)) if a is not None and b)

    def targets(self, section):
        return list(self._samples.get(section, {}))

    def names(self, section):
        """What was measured in a section, in the order in which it was."""
        return list(dict.fromkeys(n for target in self._samples.get(section, {}).values() for n in target))


def quantity(value, unit="", digits=3):
    """A number with as many digits as mean something: 1.46 M, 564 k, 1.34 µs."""
    if value is None:
        return MISSING
    for limit, suffix in (1e6, "M"), (1e4, "k"):
        if unit == "IOPS" and value >= limit:
            return f"{value / {'M': 1e6, 'k': 1e3}[suffix]:.{digits}g} {suffix}"
    return (f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}") + (f" {unit}" if unit and unit != "IOPS" else "")


def times(value):
    return MISSING if value is None else f"{value:.2f} ×"


def percent(value):
    return MISSING if value is None else f"{100 * value:.0f} %"


def met(value, limit, at_least=True):
    if value is None:
        return "–"
    return "yes" if (value >= limit if at_least else value <= limit) else "**no**"


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def wanted(r):
    """The rows wanted / measured / met."""
    rows = []
    crc = ("in-process", "CRC on")
    where = "in-process, memory disk, CRC on, busy: "
    for rw, limit in ("randread", 2.2), ("randwrite", 2.4):
        name = f"4k {rw}, depth 1"
        ratio = r.ratio((*crc, name, "p50_us"), (*crc, name, lambda s: s["floor"]["copy_ns"] / 1000))
        p50 = r.median(*crc, name, "p50_us")
        rows.append((f"{where}4 KiB {rw[4:]}, depth 1, p50", f"≤ {limit} × the floor with copies", f"{times(ratio)} ({quantity(p50, 'µs')})",
                     met(ratio, limit, False)))
    for rw, limit in ("randread", 2.0e6), ("randwrite", 1.5e6):
        iops = r.median(*crc, f"4k {rw}, depth 32", "iops")
        rows.append((f"{where}4 KiB {rw[4:]}, depth 32", f"≥ {quantity(limit, 'IOPS')} IOPS", quantity(iops, "IOPS"), met(iops, limit)))
    for rw in "read", "write":
        name = f"1m {rw}, depth 4"
        ratio = r.ratio((*crc, name, "mb_per_s"), (*crc, name, lambda s: s["floor"]["memcpy_mb_per_s"]))
        stream = r.ratio((*crc, name, "mb_per_s"), (*crc, name, lambda s: s["floor"]["stream_mb_per_s"]))
        rows.append((f"{where}1 MiB {rw}, depth 4", "≥ 80 % of memcpy",
                     f"{percent(ratio)} ({quantity(r.median(*crc, name, 'mb_per_s'), 'MB/s')}; {percent(stream)} of the floor's stream)", met(ratio, 0.8)))
    allocated = [max(s for s in (r.median(*crc, n, "allocated"), r.median(*crc, n, "server_allocated")) if s is not None)
                 for n in r.names("in-process") if r.median(*crc, n, "allocated") is not None]
    most = max(allocated, default=None)
    rows.append((f"{where}bytes allocated per I/O, the most of the above and of both sides", "0 (below 0.5: a fixed sum per run)",
                 MISSING if most is None else f"{most:.3f}", met(most, 0.5, False)))
    one, two = (r.median("pairs", "busy", n, "cpu_ns_per_io") for n in ("one", "two"))
    ratio = r.ratio(("pairs", "busy", "two", "cpu_ns_per_io"), ("pairs", "busy", "one", "cpu_ns_per_io"))
    rows.append(("two pairs on the same two CPUs: CPU time per I/O, 4 KiB read, depth 32", "that of one pair (≤ 1.10 ×)",
                 f"{times(ratio)} ({quantity(one, 'ns')} with one, {quantity(two, 'ns')} with two)", met(ratio, 1.10, False)))
    for name in "4k randread, depth 32", "4k randwrite, depth 32", "1m read, depth 4", "1m write, depth 4", "4k randread, depth 1", "4k randwrite, depth 1":
        for other, limit in ("nbdkit memory", 1.0), ("nbdkit, two hops", 2.0):
            ratio = r.ratio(("nbd", NBD[0], name, "iops"), ("nbd", other, name, "iops"))
            rows.append((f"over NBD, adaptive: {name}", f"≥ {limit:.1f} × {other}", times(ratio), met(ratio, limit)))
    for rw in "randread", "randwrite":
        busy, deep, single = "CBD, busy", f"4k {rw}, depth 32", f"4k {rw}, depth 1"
        ratio = r.ratio(("raw file", busy, deep, "iops"), ("raw file", DISK, deep, "iops"))
        adaptive = r.ratio(("raw file", "CBD, adaptive", deep, "iops"), ("raw file", DISK, deep, "iops"))
        rows.append((f"raw file, O_DIRECT, CRC on, busy: {deep}", "≥ 95 % of fio straight on it", f"{percent(ratio)} (adaptive {percent(adaptive)})", met(ratio, 0.95)))
        more, adaptive = (median(a - b for a, b in zip(r.values("raw file", t, single, "p50_us"), r.values("raw file", DISK, single, "p50_us")))
                          for t in (busy, "CBD, adaptive"))
        rows.append((f"raw file, O_DIRECT, CRC on, busy: {single}, p50", "≤ 5 µs more than fio straight on it",
                     MISSING if more is None else f"{more:+.1f} µs (adaptive {adaptive:+.1f} µs)", met(more, 5, False)))
    for index, daemon in enumerate(("disks'", "devices'")):
        used = r.median("devices", "idle", "idle", lambda s, i=index: s["cpu_percent"][i])
        rows.append((f"idle with {IDLE_DEVICES} devices, the {daemon} daemon", "≤ 0.5 % of a core", MISSING if used is None else f"{used:.2f} %", met(used, 0.5, False)))
    for target, text in ("adaptive", "in-process"), (NBD[0], "over NBD"):
        wake = r.median("modes", target, "wake", "p50_us")
        rows.append((f"first I/O after an idle second, adaptive, {text}, p50", "≤ 150 µs", quantity(wake, "µs"), met(wake, 150, False)))
    rows.append(("every figure of this page", "from `scripts/bench`; a tiny run in the tests", "`tests/e2e/test-bench-tiny`", "yes"))
    return table(("what", "wanted", "measured", "met"), rows)


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
            rows.append((name, target, rate + ("" if large else " IOPS"), *(quantity(r.median(section, target, name, k)) for k in
                         ("mean_us", "p50_us", "p99_us", "p99_9_us", "max_us")), *(f(target, name) for _, f in extra)))
    return table(("workload", "target", "median (lowest to highest)", "mean µs", "p50 µs", "p99 µs", "p99.9 µs", "max µs", *(h for h, _ in extra)), rows)


def to_floor(r, section):
    def of(target, name):
        if name.endswith("depth 1"):
            return times(r.ratio((section, target, name, "p50_us"), (section, target, name, lambda s: s["floor"]["copy_ns"] / 1000))) + " copy"
        if name.startswith("1m"):
            return percent(r.ratio((section, target, name, "mb_per_s"), (section, target, name, lambda s: s["floor"]["stream_mb_per_s"]))) + " stream"
        return ""

    def cpus(target, name):
        client, server = (r.median(section, target, name, k) for k in ("client_cpu", "server_cpu"))
        return f"{quantity(client)} + {quantity(server)}"

    def allocated(target, name):
        return " + ".join(f"{v:.3f}" if v is not None else "?" for v in (r.median(section, target, name, k) for k in ("allocated", "server_allocated")))

    return [("to the floor", of), ("CPU %, client + server", cpus), ("bytes allocated per I/O, client + server", allocated)]


def to_nbdkit(r):
    return [(f"IOPS to {other}", lambda target, name, other=other: times(r.ratio(("nbd", target, name, "iops"), ("nbd", other, name, "iops"))))
            for other in ("nbdkit memory", "nbdkit, two hops")]


def floor(r):
    at = ("floor", "floor", "floor")
    rows = [(f"{what}", quantity(r.median(*at, lambda s, p=part: s[p]["p50_ns"]), "ns"), quantity(r.median(*at, lambda s, p=part: s[p]["mean_ns"]), "ns"))
            for part, what in (("line", "a cache line to the other process and one back"), ("copy", "the same around a 4 KiB block, copied by each side"))]
    rows += [(what, quantity(r.median(*at, lambda s, p=part: s[p]["mb_per_s"]), "MB/s"), "")
             for part, what in (("stream", "1 MiB blocks, copied by each side, four in flight"), ("memcpy", "memcpy, one thread, eight 1 MiB buffers in turn"))]
    return table(("floor", "p50", "mean"), rows)


def modes(r):
    rows = []
    for mode in "busy", "adaptive", "sleep":
        idle = [r.median("modes", mode, "idle", lambda s, i=i: s["cpu_percent"][i]) for i in (0, 1)]
        rows.append((mode, quantity(r.median("modes", mode, "latency", "p50_us"), "µs"), spread(r, "modes", mode, "wake", "p50_us", "µs"),
                     *(MISSING if i is None else f"{i:.2f} %" for i in idle)))
    for target in NBD[:2]:
        rows.append((f"{target} (fio)", quantity(r.median("nbd", target, "4k randread, depth 1", "p50_us"), "µs"), spread(r, "modes", target, "wake", "p50_us", "µs"), "", ""))
    return table(("mode", "4 KiB read, depth 1, p50", "first I/O after the pause, p50", "idle, the disk's daemon", "idle, the device's daemon"), rows)


def pairs(r):
    rows = []
    for mode in r.targets("pairs"):
        for name in "one", "two":
            rows.append((mode, name, quantity(r.median("pairs", mode, name, "iops"), "IOPS") + " IOPS", quantity(r.median("pairs", mode, name, "cpu_ns_per_io"), "ns")))
    return table(("mode", "pairs", "all together", "CPU time per I/O, all processes"), rows)


def scale(r):
    at = ("start-up", "cbdd", "64 GiB")
    memory = ("devices", "memory", "memory")
    rows = [(what, value) for what, value in (
        ("cbdd, from its start until it answers", milliseconds(r.median(*at, "daemon_s"))),
        ("`tp-reg --format` of a sparse 64 GiB region in /dev/shm, 128 hosts, 512 channels", milliseconds(r.median(*at, "format_s"))),
        ("`tp-reg` of a second host on it", milliseconds(r.median(*at, "join_s"))),
        ("memory that the formatted region takes", mebibytes(r.median(*at, "stored_bytes"))),
        ("private memory of that host's daemon (RssAnon)", mebibytes(r.median(*at, "own_bytes"))),
        (f"private memory per channel, the disks' daemon ({IDLE_DEVICES} devices, {quantity(r.median(*memory, 'channels'))} channels)",
         mebibytes(r.median(*memory, lambda s: s["bytes_per_channel"][0]))),
        ("private memory per channel, the devices' daemon", mebibytes(r.median(*memory, lambda s: s["bytes_per_channel"][1]))),
        ("of the region per channel, as formatted there", mebibytes(r.median(*memory, "region_bytes_per_channel"))))]
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
        "CPU": f"{model}, {os.cpu_count()} CPUs, {says('systemd-detect-virt')}", "memory": f"{memory} GiB", "kernel": f"{platform.system()} {platform.release()}",
        "file system of the raw file": says("stat", "-f", "-c", "%T", directory), "commit": says("git", "-C", root, "describe", "--always", "--dirty"),
        "cbdd": says(cbdd, "--version"), "fio": says("fio", "--version"), "nbdkit": says("nbdkit", "--version"), "qemu-nbd": says("qemu-nbd", "--version"),
        "C library": says("getconf", "GNU_LIBC_VERSION"), "gcc": says("gcc", "--version"),
    }


def write(results, directory):
    r, profile = Results(results["samples"]), results["profile"]
    client, server = results["cpus"]
    drawn = plots.draw(r, f"{directory}/benchmarks")
    lines = [
        "# Benchmarks", "",
        f"Written by `scripts/bench`, {results['began']}: medians of {profile['rounds']} interleaved rounds in one run of {results['took_s'] / 60:.0f} minutes. "
        "A ratio is the median of the ratios within each round. Ratios count: absolute numbers are this machine's, and a virtual machine's vary from day to day.", "",
        "## Wanted and measured", "", *wanted(r),
        "## How it is measured", "",
        f"* In-process means: one thread a side. The client (`cbdctrl bench`, a host of its own with a blkdev in its process) is pinned to CPU {client}, "
        f"the daemon with the disk to CPU {server}. Payload CRC and mode as named; 8 MiB of the disk are used, as much as the floor touches, or as said.",
        "* The floor (`bench/floor.c`, which says exactly what it does) is measured with the same pinning right before and after each in-process measurement, "
        "while the daemon is stopped. What is more than 25 % apart before and after, or where a side that spins did not get its CPU, is measured again, up to "
        "four times: on virtual CPUs a cache line may take 130 ns at one moment and 500 ns at another.",
        f"* NBD: fio with its nbd engine, one connection, a Unix socket, disks of {profile['nbd_size'].upper()}iB written in full before; no server and no client is pinned. "
        "CBD over NBD is two hops, from a daemon with the device to another with the disk, modes adaptive. *Two hops* of nbdkit are `nbdkit nbd` in front of `nbdkit memory`.",
        f"* Raw file: {profile['file_size'].upper()}iB, every block written before, O_DIRECT, io_uring; fio pinned as the client of CBD is, CBD with payload CRC. "
        "qemu-nbd has a file of its own, in the page cache, as it does by default.",
        f"* First I/O after a pause of {profile['think_us'] / 1e6:g} s: the latency of reads with such pauses between them. Idle is utime and stime of /proc/PID/stat "
        f"over {profile['idle_s']} s; for the modes over {profile['mode_idle_s']} s with one device.", "",
        "## The floor", "", *floor(r),
        "## In-process, memory disk, busy", "", *comparison(r, "in-process", to_floor(r, "in-process")),
        f"The same with {profile['large_size'].upper()}iB of the disk in use, more than the caches hold:", "", *comparison(r, "in-process, large disk", to_floor(r, "in-process, large disk")),
        "Two pairs of client and daemon, each with a region of its own, on the same two CPUs, 4 KiB random reads at depth 32. CPU time is that of all processes together; "
        "it stands for cycles where the machine shows no cycle counter to its guests.", "", *pairs(r),
        "## Over NBD", "", *comparison(r, "nbd", to_nbdkit(r)),
        "## Raw file", "", *comparison(r, "raw file", [("IOPS to fio", lambda target, name: percent(r.ratio(("raw file", target, name, "iops"), ("raw file", DISK, name, "iops"))))]),
        "## Polling modes, wake and idle", "", *modes(r),
        "## Scale", "", *scale(r),
        "## Plots", "", *(f"![{title}](benchmarks/{name})\n" for name, title in drawn),
        "## Machine", "", *table(("what", "which"), results["machine"].items()),
        "## Commands", "", "The first of each kind; workloads differ in `--rw`, `--bs`, `--iodepth`, `--size` and `--runtime`.", "",
        "```", *(line for what, command in results["commands"].items() for line in (f"# {what}", command)), "```", "",
    ]
    with open(f"{directory}/benchmarks.md", "w", encoding="utf-8") as file:
        file.write("\n".join(lines).rstrip() + "\n")
