"""What the sections share: the servers and files that stay up for the whole run, pairs of client and daemon, a
measurement beside the floor, and where samples go."""

import json
import os
import signal
import time
from contextlib import contextmanager

from processes import Daemon, Server
from samples import by_bench, by_fio, fill

# The floor touches 8 MiB; what is put beside it does, too.
HOT = "8m"
REGION = ("--format", "--size", "256M", "--channels", "16")
NBD = ("CBD over NBD", "nbdkit memory", "nbdkit, two hops", "qemu-nbd, raw file")
DISK = "fio on the file"
# The floor before and after a measurement may differ by this much, or it is taken again: a hypervisor may move a virtual
# CPU to another part of the chip at any moment, and then a cache line takes several times as long. So may what else the
# machine does: each side of a pair that spins uses all of its CPU, or was not given it.
STEADY = 1.25
UNDISTURBED_PERCENT = 95
# How old a floor may be that counts as the one right before a measurement.
FLOOR_AGE_S = 1.0


def undisturbed(sample):
    return min(v for v in (sample["client_cpu"], sample["server_cpu"]) if v is not None) >= UNDISTURBED_PERCENT


class Comparison:
    """A run: what stays up during all of it, and what was measured."""

    def __init__(self, place, profile, results):
        self.place, self.profile, self.results = place, profile, results
        self._nbd = None
        self._file = None
        # The last floor, and when it was measured.
        self._floor = (None, 0.0)

    # The floor

    def floor(self, measures, seconds, what=None):
        place = self.place
        return json.loads(
            place.run(
                [
                    place.path("floor"),
                    "--measure",
                    measures,
                    "--requester-cpu",
                    str(place.client_cpu),
                    "--responder-cpu",
                    str(place.server_cpu),
                    "--seconds",
                    str(seconds),
                ],
                what=what,
            )
        )

    def beside_floor(self, daemon, take):
        """take(), mode busy, with the floor right before and after it, while the daemon, which spins, is stopped."""

        def floor():
            with stopped(daemon):
                measured = self.floor("line,copy,queue,stream,memcpy", self.profile["beside_s"])
            self._floor = (measured, time.monotonic())
            return measured

        # The floor after one measurement is the floor before the next.
        measured, at = self._floor
        before = measured if measured and time.monotonic() - at < FLOOR_AGE_S else floor()
        for _ in range(self.profile["attempts"]):
            sample, after = take(), floor()
            lines = sorted((before["line"]["p50_ns"], after["line"]["p50_ns"]))
            sample["steady"] = lines[1] <= lines[0] * STEADY and undisturbed(sample)
            sample["floor"] = {
                f"{part}_{unit}": (before[part][key] + after[part][key]) / 2
                for part, unit, key in (
                    ("copy", "ns", "p50_ns"),
                    ("queue", "read_iops", "read_iops"),
                    ("queue", "write_iops", "write_iops"),
                    ("stream", "mb_per_s", "mb_per_s"),
                    ("memcpy", "mb_per_s", "mb_per_s"),
                )
            }
            if sample["steady"]:
                break
            before = after
        return sample

    # Disks

    @contextmanager
    def pair(self, mode, disk, *region_options, name="alpha"):
        """A daemon on the server's CPU with one backend; yields it and the backend's id."""
        daemon = Daemon(self.place, name, self.place.server_cpu)
        try:
            daemon.register(self.place.region(name), *REGION, "--force", *region_options, what="region, in-process")
            yield daemon, daemon.ctl("backend-start", "-p", disk, "--mode", mode, what=f"backend, {mode}")
        finally:
            daemon.stop()

    def bench(self, daemon, backend, workload, mode, run_s=None, what="in-process"):
        profile = self.profile
        return by_bench(
            daemon,
            ("-b", backend),
            workload,
            run_s or profile["run_s"],
            profile["ramp_s"],
            mode,
            self.place.client_cpu,
            what,
        )

    def fill_backend(self, daemon, backend, size):
        """Writes the whole of a memory disk: what was never written is not read from anywhere."""
        daemon.bench(
            "-b",
            backend,
            "--rw",
            "write",
            "--bs",
            "1m",
            "--iodepth",
            4,
            "--size",
            size,
            "--overwrite",
            "--runtime",
            self.profile["fill_s"],
            cpu=self.place.client_cpu,
        )

    def file(self):
        """A file on a disk whose every block was written."""
        if not self._file:
            path = self.place.path("disk.img")
            self.place.run(
                [
                    "fio",
                    "--name=fill",
                    f"--filename={path}",
                    "--rw=write",
                    "--bs=1m",
                    "--direct=1",
                    "--ioengine=io_uring",
                    "--iodepth=8",
                    f"--size={self.profile['file_size']}",
                    "--end_fsync=1",
                    "--verify_state_save=0",
                    "--output-format=json",
                ]
            )
            self._file = path
        return self._file

    def fio_engine(self):
        return ["--ioengine=io_uring", "--direct=1", f"--filename={self.file()}"]

    def nbd(self):
        """URIs of the NBD servers, which stay up; none of them is pinned."""
        if self._nbd:
            return self._nbd
        place, size = self.place, self.profile["nbd_size"]
        alpha, beta = Daemon(place, "nbd-alpha"), Daemon(place, "nbd-beta")
        region = place.region("nbd")
        alpha.register(region, *REGION, what="region, over NBD")
        beta.register(region)
        backend = alpha.ctl("backend-start", "-p", f"memory:{size.upper()}", what="backend, over NBD")
        uris = {"CBD over NBD": beta.ctl("dev-start", "--attach", "none", "-b", backend, "--queues", 1, what="device, over NBD")}
        one = Server(place, "nbdkit", ["nbdkit", "-f", "-U", "SOCKET", "memory", size], what="nbdkit memory")
        uris["nbdkit memory"] = one.uri
        near = Server(place, "nbdkit-near", ["nbdkit", "-f", "-U", "SOCKET", "memory", size])
        uris["nbdkit, two hops"] = Server(
            place,
            "nbdkit-far",
            ["nbdkit", "-f", "-U", "SOCKET", "nbd", f"socket={near.socket}"],
            what="nbdkit, two hops, the second",
        ).uri
        image = place.path("qemu.img")
        with open(image, "wb") as file:
            file.truncate(int(size[:-1]) << 20)
        uris["qemu-nbd, raw file"] = Server(
            place, "qemu-nbd", ["qemu-nbd", "-f", "raw", "-t", "-k", "SOCKET", image], what="qemu-nbd, raw file"
        ).uri
        for uri in uris.values():
            fill(place, uri, size)
        self._nbd = uris
        return uris

    def fio_nbd(self, target, workload, run_s=None, extra=()):
        profile = self.profile
        return by_fio(
            self.place,
            ["--ioengine=nbd", f"--uri={self.nbd()[target]}", *extra],
            workload,
            run_s or profile["run_s"],
            profile["ramp_s"],
            what=f"fio, {target}",
        )

    def add(self, section, target, name, sample):
        self.results.setdefault(section, {}).setdefault(target, {}).setdefault(name, []).append(sample)


@contextmanager
def stopped(daemon):
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
