"""The comparison: measures CBD, the floor and what a user would take instead, in interleaved rounds, and writes the
report. scripts/bench calls it when everything that it needs is there; see there for the options."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import report
from comparison import Comparison
from processes import Failed, Workplace
from sections import ONCE, SECTIONS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FLOOR_BUILD = ["gcc", "-std=gnu17", "-O2", "-march=native", "-fno-builtin-memcpy"]

# run, ramp, sweep, floor, beside, fill: seconds of one measurement of that kind; beside is each of the floor's five (queue twice).
# attempts: how often a measurement that was disturbed is taken at most.
FULL = {
    "name": "full",
    "rounds": 5,
    "attempts": 2,
    "run_s": 1,
    "ramp_s": 0.2,
    "sweep_s": 0.3,
    "floor_s": 0.5,
    "beside_s": 0.1,
    "fill_s": 0.5,
    "nbd_size": "256m",
    "file_size": "1g",
    "large_size": "1g",
    "depths": [1, 2, 4, 8, 16, 32, 64],
    "block_sizes": ["4k", "16k", "64k", "256k", "1m"],
    "think_us": 1000000,
    "think_run_s": 5,
    "mode_idle_s": 3,
    "idle_s": 60,
    "scale_hosts": 128,
    "scale_idle_s": 20,
}
TINY = FULL | {
    "name": "tiny",
    "rounds": 1,
    "attempts": 1,
    "run_s": 0.1,
    "ramp_s": 0,
    "sweep_s": 0.05,
    "floor_s": 0.02,
    "beside_s": 0.01,
    "fill_s": 0.05,
    "nbd_size": "8m",
    "file_size": "16m",
    "large_size": "16m",
    "depths": [32],
    "block_sizes": ["1m"],
    "think_us": 50000,
    "think_run_s": 0.3,
    "mode_idle_s": 0.5,
    "idle_s": 1,
    "scale_hosts": 3,
    "scale_idle_s": 0.5,
}


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split(";")[0])
    parser.add_argument(
        "--tiny", action="store_true", help="one round of tiny inputs: a test of the comparison, its numbers mean nothing"
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="where benchmarks.md, benchmarks/*.svg and results.json go; by default docs/, and "
        "artifacts/bench/ for results.json; needed with --tiny",
    )
    parser.add_argument("--rounds", type=positive, help="rounds to take the medians of; 5 by default")
    parser.add_argument(
        "--cpus", type=two_cpus, default=(0, 1), metavar="CLIENT,SERVER", help="the two CPUs; 0,1 by default"
    )
    parser.add_argument("--only", metavar="SECTION,…", type=sections, help="measure these alone: " + ", ".join(SECTIONS))
    parser.add_argument(
        "--lock",
        metavar="FILE",
        help="hold a lock (flock) on this file during each measurement: on a machine where others "
        "who work take it shared",
    )
    parser.add_argument(
        "--from",
        dest="results",
        metavar="FILE",
        help="measure nothing; write the report of the results.json of an earlier run",
    )
    options = parser.parse_args()
    if options.tiny and not options.output:
        parser.error("--tiny needs --output DIR: what it measures does not belong into docs/")
    if not os.access(ROOT + "/docs", os.W_OK) and not options.output:
        parser.error("docs/ cannot be written; give --output DIR")
    return options


def positive(value):
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{value}' is not a positive number")
    return number


def two_cpus(value):
    cpus = tuple(int(cpu) for cpu in value.split(","))
    if len(cpus) != 2 or cpus[0] == cpus[1] or not set(cpus) <= os.sched_getaffinity(0):
        raise argparse.ArgumentTypeError(f"'{value}' is not two different CPUs of {sorted(os.sched_getaffinity(0))}")
    return cpus


def sections(value):
    names = value.split(",")
    for name in names:
        if name not in SECTIONS:
            raise argparse.ArgumentTypeError(f"'{name}' is not one of {', '.join(SECTIONS)}")
    return names


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(options, profile):
    results = {"profile": profile, "samples": {}, "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    place = Workplace(ROOT, options.cpus, options.lock)
    try:
        build = [*FLOOR_BUILD, "-o", place.path("floor"), f"{ROOT}/bench/floor.c"]
        place.remember("floor, built by", build)
        place.run(build)
        run = Comparison(place, profile, results["samples"])
        for number in range(1, profile["rounds"] + 1):
            for name in options.only or SECTIONS:
                if number > 1 and name in ONCE:
                    continue
                say(f"round {number} of {profile['rounds']}: {name}")
                SECTIONS[name](run)
        results["commands"] = place.commands
        results["cpus"] = options.cpus
        results["machine"] = report.machine(place.cbdd, place.directory)
    finally:
        place.close()
    return results


def stop(number, _frame):
    # Once: a second signal must not interrupt the clean-up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def main():
    options = arguments()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    if options.results:
        with open(options.results, encoding="utf-8") as file:
            results = json.load(file)
    else:
        profile = TINY if options.tiny else FULL
        if options.rounds:
            profile = profile | {"rounds": options.rounds}
        began = time.monotonic()
        results = measure(options, profile)
        results["took_s"] = time.monotonic() - began
    directory = options.output or f"{ROOT}/docs"
    raw = options.output or f"{ROOT}/artifacts/bench"
    os.makedirs(f"{directory}/benchmarks", exist_ok=True)
    os.makedirs(raw, exist_ok=True)
    with open(f"{raw}/results.json", "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
    report.write(results, directory)
    say(f"{directory}/benchmarks.md is written; raw results are in {raw}/results.json")


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError, subprocess.SubprocessError) as error:
        say(str(error))
        sys.exit(1)
