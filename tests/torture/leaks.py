"""What a daemon has of the machine: it may not become more, whatever happened, and nothing is left when it is gone."""

import glob
import os

from hosts import Wrong, await_, loops_of

SETTLE_S = 60
# What may be there more than at the start: clients that are just connected; threads of a pool; 40 MiB of stacks of threads that have
# ended, which the C library keeps, each 1 MiB and two mappings; memory that the heap keeps.
MORE = {"descriptors": 6, "threads": 12, "mappings of files": 4, "mappings": 150, "private MiB": 64, "memory files": 0, "loop devices": 0, "run entries": 0, "names": 0,
        "disk reservations": 0}


def lines(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def links(directory):
    found = []
    for name in os.listdir(directory):
        try:
            found.append(os.readlink(os.path.join(directory, name)))
        except FileNotFoundError:
            continue
    return found


def names_of(text):
    """Files of the machine's registry of device names that have this text."""
    found = []
    for path in glob.glob("/run/cbd-nodes/*.wanted") + glob.glob("/run/cbd-nodes/by-node/*"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                if text in file.read():
                    found.append(path)
        except OSError:
            continue
    return found


def amounts(host):
    proc = f"/proc/{host.process.pid}"
    open_files, maps = links(f"{proc}/fd"), lines(f"{proc}/maps")
    return {
        "descriptors": len(open_files),
        "threads": len(os.listdir(f"{proc}/task")),
        "mappings of files": sum("/" in line for line in maps),
        "mappings": len(maps),
        "private MiB": sum(int(line.split()[1]) for line in lines(f"{proc}/smaps_rollup") if line.startswith(("Private_Dirty", "Private_Hugetlb", "Swap:"))) >> 10,
        "memory files": sum(name.startswith("/memfd:") for name in open_files),
        "loop devices": len(loops_of(host.pids)),
        "run entries": len(os.listdir(host.run_dir)),
        "names": len(names_of(host.state)),
        "disk reservations": len(os.listdir(host.world.path("disks"))),
    }


class Leaks:
    """Compares what daemons have with what they had when this was made. A daemon that was killed and started again has the same to do, so it
    may have no more either."""

    def __init__(self, *hosts):
        self.first = {host: amounts(host) for host in hosts}
        self.most = {host: dict(first) for host, first in self.first.items()}

    def look(self):
        """What is just being closed gets time; what stays is a leak."""
        for host in self.first:
            try:
                await_(SETTLE_S, "", lambda: not self.leaked(host), 0.1)
            except Wrong:
                raise Wrong(f"daemon {host.name} leaks: {', '.join(self.leaked(host))}; {self.detail(host)}") from None
            for what, amount in amounts(host).items():
                self.most[host][what] = max(self.most[host][what], amount)

    def leaked(self, host):
        first = self.first[host]
        return [f"{amount} {what}, {first[what]} at the start" for what, amount in amounts(host).items() if amount > first[what] + MORE[what]]

    @staticmethod
    def detail(host):
        return f"its descriptors are {' '.join(sorted(links(f'/proc/{host.process.pid}/fd')))}"

    def text(self):
        """The first and the most of what changed."""
        return "; ".join(f"{host.name}: " + ", ".join(f"{what} {first} to {self.most[host][what]}" for what, first in self.first[host].items() if self.most[host][what] != first)
                         for host in self.first)


def must_be_gone(world):
    """After all daemons have ended."""
    left = loops_of([pid for host in world.hosts for pid in host.pids])
    left += [path for path in glob.glob(glob.escape(world.region) + ".*") + glob.glob(f"/sys/fs/cgroup/**/{os.path.basename(world.work)}*", recursive=True)]
    for host in world.hosts:
        left += names_of(host.state)
        left += [os.path.join(host.run_dir, name) for name in os.listdir(host.run_dir) if name != "lock"]
    if left:
        raise Wrong(f"all daemons have ended, and there is still {', '.join(left)}")
