"""One measurement as a sample: a flat record with the same keys whether fio, cbdctrl bench or floor took it.

iops, mb_per_s (10^6), mean_us, p50_us, p99_us, p99_9_us, max_us, errors, percentiles [[percentile, µs], …], and where
the tool knows them client_cpu and server_cpu (percent of one CPU) and allocated, server_allocated (bytes per I/O).
"""

import json
import statistics
from collections import namedtuple

from processes import Failed

FIO_PERCENTILES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97.5, 99, 99.5, 99.9, 99.95, 99.99)

# What is done to a target. size: bytes of the disk that are used, with fio's units.
Workload = namedtuple("Workload", "rw bs depth size")


def text(workload):
    """A workload's name in results and tables: '4k randread, depth 1'."""
    return f"{workload.bs} {workload.rw}, depth {workload.depth}"


def by_bench(daemon, where, workload, run_s, ramp_s, mode, cpu, what=None):
    """where: ('-b', ID) or ('--nbd', URI)."""
    writes = ["--overwrite"] if "write" in workload.rw else []
    report = daemon.bench(
        *where,
        "--rw",
        workload.rw,
        "--bs",
        workload.bs,
        "--iodepth",
        workload.depth,
        "--size",
        workload.size,
        "--runtime",
        run_s,
        "--ramp-time",
        ramp_s,
        "--mode",
        mode,
        *writes,
        cpu=cpu,
        what=what,
    )
    return of_bench(report, text(workload))


def of_bench(report, what):
    if report["ios"] == 0 or report["errors"] != 0:
        raise Failed(f"cbdctrl bench, {what}: {report['ios']} I/Os, {report['errors']} errors")
    latency = report["latency_us"]
    return {
        "iops": report["iops"],
        "mb_per_s": report["mb_per_s"],
        "mean_us": latency["mean"],
        "p50_us": latency["p50"],
        "p99_us": latency["p99"],
        "p99_9_us": latency["p99_9"],
        "max_us": latency["max"],
        "errors": report["errors"],
        "percentiles": [[p["percentile"], p["latency_us"]] for p in report["percentiles"]],
        "client_cpu": report["cpu"]["client_percent"],
        "server_cpu": report["cpu"]["server_percent"],
        "allocated": report["bytes_allocated_per_io"],
        "server_allocated": report["server_bytes_allocated_per_io"],
    }


def by_fio(place, engine, workload, run_s, ramp_s, cpu=None, what=None):
    """engine: fio's options that name the engine and what it drives."""
    report = place.run(
        [
            "fio",
            "--name=bench",
            *engine,
            f"--rw={workload.rw}",
            f"--bs={workload.bs}",
            f"--iodepth={workload.depth}",
            f"--size={workload.size}",
            "--time_based",
            f"--runtime={round(run_s * 1000)}ms",
            f"--ramp_time={round(ramp_s * 1000)}ms",
            "--norandommap",
            "--randrepeat=0",
            "--clat_percentiles=0",
            "--lat_percentiles=1",
            "--percentile_list=" + ":".join(map(str, FIO_PERCENTILES)),
            "--verify_state_save=0",
            "--output-format=json",
        ],
        cpu=cpu,
        what=what,
    )
    # fio may write lines of text before its report.
    job = json.loads(report[report.index("{") :])["jobs"][0]
    side = job["write" if "write" in workload.rw else "read"]
    if job["error"] != 0 or job.get("total_err", 0) != 0 or side["total_ios"] == 0:
        raise Failed(f"fio, {text(workload)}: {side['total_ios']} I/Os, error {job['error']}")
    latency = side["lat_ns"]
    points = [[float(p), ns / 1000] for p, ns in latency["percentile"].items()]
    at = dict(points)
    return {
        "iops": side["iops"],
        "mb_per_s": side["bw_bytes"] / 1e6,
        "mean_us": latency["mean"] / 1000,
        "p50_us": at[50.0],
        "p99_us": at[99.0],
        "p99_9_us": at[99.9],
        "max_us": latency["max"] / 1000,
        "errors": job.get("total_err", 0),
        "percentiles": points,
        "client_cpu": job["usr_cpu"] + job["sys_cpu"],
        "server_cpu": None,
    }


def fill(place, uri, size):
    """Writes all of an NBD disk once: memory that was never written is not read from anywhere."""
    place.run(
        [
            "fio",
            "--name=fill",
            "--ioengine=nbd",
            f"--uri={uri}",
            "--rw=write",
            "--bs=1m",
            "--iodepth=4",
            f"--size={size}",
            "--verify_state_save=0",
            "--output-format=json",
        ]
    )


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None
