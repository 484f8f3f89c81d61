"""The table wanted / measured / met: what the data path has to reach, a row each."""

import attach
from comparison import DISK, NBD
from results import MISSING, met, percent, quantity, table, times
from samples import median
from sections import IDLE_DEVICES


def wanted(r, profile):
    """The rows wanted / measured / met."""
    rows = []
    crc = ("in-process", "CRC on")
    where = "in-process, memory disk, CRC on, busy: "
    for rw, limit in ("randread", 2.2), ("randwrite", 2.4):
        name = f"4k {rw}, depth 1"
        ratio = r.ratio((*crc, name, "p50_us"), (*crc, name, lambda s: s["floor"]["copy_ns"] / 1000))
        p50 = r.median(*crc, name, "p50_us")
        floor = r.median(*crc, name, lambda s: s["floor"]["copy_ns"] / 1000)
        rows.append(
            (
                f"{where}4 KiB {rw[4:]}, depth 1, p50",
                f"≤ {limit} × the floor with copies",
                f"{times(ratio)} ({quantity(p50, 'µs')}, the floor {quantity(floor, 'µs')})",
                met(ratio, limit, False) + disturbed(r, *crc, name),
            )
        )
    for rw, limit in ("randread", 2.0e6), ("randwrite", 1.5e6):
        name = f"4k {rw}, depth 32"
        iops = r.median(*crc, name, "iops")
        rows.append(
            (
                f"{where}4 KiB {rw[4:]}, depth 32",
                f"≥ {quantity(limit, 'IOPS')} IOPS",
                f"{quantity(iops, 'IOPS')} ({percent(r.to_queue(*crc, name))} of the floor's queue)",
                met(iops, limit) + disturbed(r, *crc, name),
            )
        )
    for rw in "read", "write":
        name = f"1m {rw}, depth 4"
        ratio = r.ratio((*crc, name, "mb_per_s"), (*crc, name, lambda s: s["floor"]["memcpy_mb_per_s"]))
        stream = r.ratio((*crc, name, "mb_per_s"), (*crc, name, lambda s: s["floor"]["stream_mb_per_s"]))
        rows.append(
            (
                f"{where}1 MiB {rw}, depth 4",
                "≥ 80 % of memcpy",
                f"{percent(ratio)} ({quantity(r.median(*crc, name, 'mb_per_s'), 'MB/s')}; {percent(stream)} of the floor's stream)",
                met(ratio, 0.8) + disturbed(r, *crc, name),
            )
        )
    rows.append(allocation(r, crc, where, profile["run_s"]))
    one, two = (r.median("pairs", "adaptive", n, "cpu_ns_per_io") for n in ("one", "two"))
    ratio = r.ratio(("pairs", "adaptive", "two", "cpu_ns_per_io"), ("pairs", "adaptive", "one", "cpu_ns_per_io"))
    rows.append(
        (
            "two pairs on the same two CPUs, adaptive: CPU time per I/O, 4 KiB read, depth 32",
            "that of one pair (≤ 1.10 ×)",
            f"{times(ratio)} ({quantity(one, 'ns')} with one, {quantity(two, 'ns')} with two)",
            met(ratio, 1.10, False),
        )
    )
    for name in (
        "4k randread, depth 32",
        "4k randwrite, depth 32",
        "1m read, depth 4",
        "1m write, depth 4",
        "4k randread, depth 1",
        "4k randwrite, depth 1",
    ):
        for other, limit in ("nbdkit memory", 1.0), ("nbdkit, two hops", 2.0):
            ratio = r.ratio(("nbd", NBD[0], name, "iops"), ("nbd", other, name, "iops"))
            rows.append((f"over NBD, adaptive: {name}", f"≥ {limit:.1f} × {other}", times(ratio), met(ratio, limit)))
    for rw in "randread", "randwrite":
        busy, deep, single = "CBD, busy", f"4k {rw}, depth 32", f"4k {rw}, depth 1"
        ratio = r.ratio(("raw file", busy, deep, "iops"), ("raw file", DISK, deep, "iops"))
        adaptive = r.ratio(("raw file", "CBD, adaptive", deep, "iops"), ("raw file", DISK, deep, "iops"))
        rows.append(
            (
                f"raw file, O_DIRECT, CRC on, busy: {deep}",
                "≥ 95 % of fio straight on it",
                f"{percent(ratio)} (adaptive {percent(adaptive)})",
                met(ratio, 0.95),
            )
        )
        more, adaptive = (
            median(
                a - b
                for a, b in zip(r.values("raw file", t, single, "p50_us"), r.values("raw file", DISK, single, "p50_us"))
            )
            for t in (busy, "CBD, adaptive")
        )
        rows.append(
            (
                f"raw file, O_DIRECT, CRC on, busy: {single}, p50",
                "≤ 5 µs more than fio straight on it",
                MISSING if more is None else f"{more:+.1f} µs (adaptive {adaptive:+.1f} µs)",
                met(more, 5, False),
            )
        )
    rows += attach.wanted_rows(r)
    for index, daemon in enumerate(("disks'", "devices'")):
        used = r.median("devices", "idle", "idle", lambda s, i=index: s["cpu_percent"][i])
        rows.append(
            (
                f"idle with {IDLE_DEVICES} devices, the {daemon} daemon",
                "≤ 0.5 % of a core",
                MISSING if used is None else f"{used:.2f} %",
                met(used, 0.5, False),
            )
        )
    for target, text in ("adaptive", "in-process"), (NBD[0], "over NBD"):
        wake = r.median("modes", target, "wake", "p50_us")
        rows.append(
            (
                f"first I/O after an idle second, adaptive, {text}, p50",
                "≤ 150 µs",
                quantity(wake, "µs"),
                met(wake, 150, False),
            )
        )
    rows.append(
        ("every figure of this page", "from `scripts/bench`; a tiny run in the tests", "`tests/e2e/test-bench-tiny`", "yes")
    )
    return table(("what", "wanted", "measured", "met"), rows)


def disturbed(r, *measurement):
    """What a verdict gets where most of its rounds were disturbed in every attempt: it says little then."""
    steady = r.values(*measurement, "steady")
    return ", disturbed" if steady.count(False) * 2 > len(steady) else ""


def allocation(r, at, where, run_s):
    """What each further I/O allocates: between the workloads of the fewest and of the most I/Os. A run of any length
    allocates a fixed sum besides, which the quotient that bench reports contains."""
    totals = []
    for name in r.names(at[0]):
        iops = r.median(*at, name, "iops")
        if iops:
            ios = iops * run_s
            sides = [r.median(*at, name, key) for key in ("allocated", "server_allocated")]
            totals.append((ios, sum(ios * side for side in sides if side is not None)))
    what, limit = f"{where}bytes allocated per further I/O, both sides", "0"
    if len(totals) < 2 or min(totals)[0] == max(totals)[0]:
        return (what, limit, MISSING, "–")
    (fewest, least), (most, greatest) = min(totals), max(totals)
    per_io = (greatest - least) / (most - fewest)
    return (
        what,
        limit,
        f"{abs(per_io):.3f} ({least:.0f} bytes in a run of {fewest:.0f} I/Os, {greatest:.0f} in one of {most:.0f})",
        met(abs(per_io), 0.0005, False),
    )
