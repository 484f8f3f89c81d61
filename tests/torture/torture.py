"""Real daemons, real file systems, real kills. See docs/testing.md.

torture backend-kills --cycles N      kill -9 of the disk's daemon under load on ext4
torture device-kills --cycles N       kill -9 of the device's daemon
torture power-cuts-bare --cuts N      the same disk and load without CBD, to compare with
torture boots --boots N               three hosts killed and started in any order: names lead to their disks
torture mixed --minutes N             random faults of all kinds
torture power-cuts --cuts N           the disk's writes recorded, and cut anywhere
torture hostile --minutes N           a peer that rewrites the region
torture outlive --kills N             a device outlives its worker under cbdd --supervise
torture crowd --minutes N             a good NBD client among a hundred bad ones: how long its reads take

With --state FILE a run continues what earlier runs with that file did, and does not more than what is left.
"""

import argparse
import functools
import os
import random
import signal
import sys
import time

import backend_kills
import boots
import crowd
import device_kills
import hostile
import hosts
import mixed
import outlive
import power_cuts
from progress import Progress

MINUTES = ("mixed", "hostile", "crowd")
MODES = {
    "backend-kills": ("cycles", 500, "kills", backend_kills.run),
    "device-kills": ("cycles", 200, "kills", device_kills.run),
    "boots": ("boots", 26, "boots", boots.run),
    "outlive": ("kills", 300, "kills", outlive.run),
    "power-cuts": ("cuts", 300, "cuts", power_cuts.run),
    "mixed": ("minutes", 10, "minutes", mixed.run),
    "hostile": ("minutes", 10, "minutes", hostile.run),
    "crowd": ("minutes", 1, "minutes", crowd.run),
    "power-cuts-bare": ("cuts", 50, "cuts", power_cuts.run_bare),
}


def options():
    parser = argparse.ArgumentParser(prog="torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    for name, (amount, default, _, _) in MODES.items():
        mode = modes.add_parser(name)
        mode.add_argument(f"--{amount}", dest="amount", type=float if amount == "minutes" else int, default=default)
        mode.add_argument("--slice", type=float, help="do at most so much in this run; the rest in the next, with --state")
        mode.add_argument("--seed", type=int, help="of the choices; a fresh one unless given")
        mode.add_argument("--state", help="file that several runs share")
        if name == "mixed":
            mode.add_argument("--only", choices=mixed.NAMES, help="this fault alone, again and again")
        elif name == "outlive":
            mode.add_argument("--fs", choices=(*outlive.FILE_SYSTEMS, "all"), default="all", help="what the load lies on; by default all of them, in turn")
            mode.add_argument("--who", choices=(*outlive.ROUNDS, "supervisor", "guest"), default="worker", help="what is killed, or stopped past its lease")
            mode.add_argument("--database", choices=("sqlite",), help="instead of fio and the stamps")
            mode.add_argument("--buffered", action="store_true", help="a disk without O_DIRECT")
            mode.add_argument("--judge", action="store_true", help="pauses over the limits are an error")
    return parser.parse_args()


def main():
    given = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, _, counted, run = MODES[given.mode]
    if getattr(given, "only", None):
        run = functools.partial(run, only=given.only)
    if given.mode == "outlive":
        run = functools.partial(run, options=given)
    progress = Progress(given.state, given.mode)
    left = given.amount - (progress.done(counted) if given.state else 0)
    if left > 0:
        seed = given.seed if given.seed is not None else random.SystemRandom().randrange(1 << 32)
        progress.seed(seed)
        print(f"torture: {given.mode} --seed {seed}", flush=True)
        started = time.monotonic()
        try:
            amount = min(left, given.slice or left)
            run(progress, seed, amount if given.mode in MINUTES else int(amount), lambda text: print(f"torture: {time.monotonic() - started:.0f} s: {text}", flush=True))
        except hosts.Wrong as wrong:
            print(f"torture: WRONG: {wrong} (seed {seed})", flush=True)
            progress.count(failed_runs=1)
            progress.save()
            return 1
        progress.count(seconds=time.monotonic() - started)
        progress.save()
    print(f"torture: {progress.text()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    os.environ["LC_ALL"] = "C.UTF-8"
    sys.exit(main())
