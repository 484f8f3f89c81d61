"""Random faults of all kinds at once: kill -9 of either daemon, SIGSTOP and SIGCONT, a disk that is full, a disk with errors,
a region without a free channel, and the surroundings of weather.py; under a stamped load on a mounted ext4 and fio on an NBD
export. After each of them nothing may have leaked."""

import contextlib
import os
import random
import signal
import subprocess
import time

from hosts import CBDCTRL, World, Wrong, await_, command
from leaks import Leaks, must_be_gone
from stamps import READS, WRONG, Ledger, Load, judge, prepare
from weather import Weather

ROUND_S = 40
# How often each fault is chosen, against the others.
FAULTS = {
    "kill-backend": 2, "stop-and-go-on": 2, "kill-stopped": 1, "kill-device": 1, "free-the-full-disk": 1, "press-the-region": 1, "fail-the-disk": 1,
    "fill-the-log": 1, "fill-the-state": 1, "use-up-descriptors": 1, "use-up-threads": 1, "jump-the-clock": 1, "fill-the-region": 1, "fill-a-disk": 1,
}
NAMES = list(FAULTS)


class Scene:
    """One ext4 on a device that lives through everything, and a second disk that fails."""

    def __init__(self, world, choose):
        self.world, self.choose = world, choose
        self.weather = Weather(self, world, choose)
        self.alpha, self.beta = world.two_hosts("64M", self.weather.surround)
        self.alpha.ctl("backend-start", "-p", world.disk("disk", 128 << 20))
        self.node = world.attach(self.beta, "--queues", "2")
        command("mkfs.ext4", "-q", self.node)
        self.where = world.mount(self.node)
        self.ledger = Ledger(world.path("ledger"), writers=4, blocks=1024, seed=choose.randrange(1 << 32))
        prepare(self.ledger, self.where)
        # A small file system, whose disk file is larger than it is: it gets full.
        small = world.disk("small", 24 << 20)
        command("mkfs.ext4", "-q", "-m", "0", small)
        self.small = world.mount(small, "small-mount", "-o", "loop")
        with open(os.path.join(self.small, "disk"), "wb") as file:
            file.truncate(64 << 20)
        self.has_faults = "backend-fault" in subprocess.run([CBDCTRL, "--help"], stdout=subprocess.PIPE, text=True, check=False).stdout
        self.second = int(self.alpha.ctl("backend-start", "-p", os.path.join(self.small, "disk")))
        self.fio = None
        self.start_load()
        self.start_fio()
        self.must_be_well()
        self.leaks = Leaks(self.alpha, self.beta)

    def start_load(self):
        self.load = Load(self.world, self.ledger, self.where)

    def start_fio(self):
        """Writes all over the second disk, until the file system below it is full; then errors, which it goes on from."""
        self.uri = self.beta.ctl("dev-start", "-b", str(self.second), "--attach", "none", "--queues", "2")
        self.fio = self.world.spawn(
            "fio", "--name=full", "--thread", "--ioengine=nbd", f"--uri={self.uri}", "--rw=randwrite", "--bs=16k", "--size=60M", "--iodepth=8", "--time_based",
            "--runtime=86400", "--continue_on_error=all", "--error_dump=0", "--verify_state_save=0", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def end_fio(self):
        if self.fio:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.fio.pid, signal.SIGKILL)
            self.fio.wait()

    def must_be_well(self):
        """The first device has had no error and no wrong block, and goes on."""
        before = self.ledger.progress()
        await_(90, "that the load goes on", lambda: all(now > then for now, then in zip(self.ledger.progress(), before)) or self.ledger.complaint())
        if complaint := self.ledger.complaint():
            raise Wrong(complaint)
        for host in (self.alpha, self.beta):
            host.must_live()

    def kill_backend(self):
        self.alpha.kill()
        time.sleep(self.choose.choice((0, 0, 0.3, 2)))
        self.alpha.start("--restore")

    def stop_and_go_on(self):
        host = self.choose.choice((self.alpha, self.beta))
        host.process.send_signal(signal.SIGSTOP)
        time.sleep(self.choose.choice((0.05, 0.5, 2, 4)))
        host.process.send_signal(signal.SIGCONT)

    def kill_stopped(self):
        self.alpha.process.send_signal(signal.SIGSTOP)
        time.sleep(self.choose.uniform(0, 1))
        self.kill_backend()

    def kill_device(self):
        """The users of both devices have errors; afterwards all that was flushed is there."""
        self.end_fio()
        self.beta.kill()
        try:
            self.load.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Wrong("a writer is stuck after its device was killed") from None
        if wrong := sum(self.ledger.writer(index)[0][WRONG] for index in range(self.ledger.writers)):
            raise Wrong(f"{wrong} wrong blocks were read")
        self.world.unmount(self.where)
        self.beta.start("--restore")
        devices = self.beta.list("dev-list")
        node = [entry["dev_name"] for entry in devices if entry["backend_id"] == 0]
        if not node:
            raise Wrong(f"the device did not come back: {devices}; {self.beta.log_end()}")
        self.world.mount(node[0])
        if wrong := judge(self.ledger, self.where):
            raise Wrong(f"{len(wrong)} blocks: " + "; ".join(wrong[:4]))
        for entry in devices:
            if entry["backend_id"] != 0:
                self.beta.ctl("dev-stop", "-d", entry["name"])
        self.start_load()
        self.start_fio()

    def stop_device(self, device):
        """What another run on this machine does in a mount namespace of its own has our mounts, too, for a while."""
        def try_stop():
            status, _, err = self.beta.try_ctl("dev-stop", "-d", str(device))
            if status != 0 and "mounted on" not in err:
                raise Wrong(f"{self.beta.name}: dev-stop: exit code {status}: {err}")
            return status == 0
        await_(300, "that nobody else has the device mounted", try_stop, 0.5)

    def free_the_full_disk(self):
        """Room again: after errors the second disk goes on, without a restart of anything."""
        with open(os.path.join(self.small, "disk"), "r+b") as file:
            command("fallocate", "--punch-hole", "--offset", "0", "--length", str(64 << 20), file.name)
        self.alpha.try_ctl("backend-clear", "-b", str(self.second))

    def press_the_region(self):
        """Every channel that is left is taken, until there is none; then all are given back."""
        started = []
        extra = self.alpha.ctl("backend-start", "-p", "null:1G", "--read-only")
        while True:
            status, out, err = self.beta.try_ctl("dev-start", "-b", extra, "--attach", "none", "--queues", "4", "--read-only")
            if status != 0:
                break
            started.append(out)
        if status != 5:
            raise Wrong(f"with a full region dev-start ended with exit code {status}: {err}")
        for entry in self.beta.list("dev-list"):
            if entry["backend_id"] == int(extra):
                self.beta.ctl("dev-stop", "-d", str(entry["blkdev_id"]))
        self.alpha.ctl("backend-stop", "-b", extra)
        if not started:
            raise Wrong("the region had no free channel before it was full")

    def fail_the_disk(self):
        """A third disk fails half of its writes, and is right again when that is switched off; its users see just that."""
        seed = self.choose.randrange(1 << 16)
        disk = self.alpha.ctl("backend-start", "-p", "memory:8M", "--fault", f"error,op=write,rate=0.5,seed={seed}")
        uri = self.beta.ctl("dev-start", "-b", disk, "--attach", "none")
        device = next(entry["blkdev_id"] for entry in self.beta.list("dev-list") if entry["dev_name"] == uri)
        if self.write_all(uri) == 0:
            raise Wrong("no write failed although the disk fails half of them")
        self.alpha.ctl("backend-fault", "-b", disk, "off")
        if (status := self.write_all(uri)) != 0:
            raise Wrong(f"fio ended with exit code {status} after the faults of the disk were switched off")
        self.beta.ctl("dev-stop", "-d", str(device))
        self.alpha.ctl("backend-stop", "-b", disk)

    def write_all(self, uri):
        return subprocess.run(
            ["fio", "--name=faults", "--ioengine=nbd", f"--uri={uri}", "--rw=write", "--bs=16k", "--size=8M", "--iodepth=4", "--verify_state_save=0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, check=False).returncode


def faults(scene, say):
    """The faults that can be had here, by name."""
    found = {}
    for name in NAMES:
        method = name.replace("-", "_")
        fault = getattr(scene, method, None) or getattr(scene.weather, method)
        why = scene.weather.unavailable(name) if scene.has_faults or name != "fail-the-disk" else "this cbdctrl has no backend-fault"
        if why:
            say(f"{name} is left out: {why}")
        else:
            found[name] = fault
    return found


def run_round(progress, choose, seconds, say, only):
    with World("mixed") as world:
        scene = Scene(world, choose)
        have = faults(scene, say)
        if only and only not in have:
            raise Wrong(f"{only} cannot be had here")
        names = [only] if only else [name for name in have for _ in range(FAULTS[name])]
        end = time.monotonic() + seconds
        done = {}
        started = time.monotonic()
        while time.monotonic() < end:
            name = choose.choice(names)
            try:
                have[name]()
                scene.must_be_well()
                scene.leaks.look()
            except Wrong as wrong:
                raise Wrong(f"{name}: {wrong}") from wrong
            done[name] = done.get(name, 0) + 1
            if os.statvfs(scene.small).f_bavail < 16:
                done["rounds_with_a_full_disk"] = 1
        scene.load.stop()
        scene.end_fio()
        world.unmount(scene.where)
        command("e2fsck", "-fn", scene.beta.list("dev-list")[0]["dev_name"])
        for entry in scene.beta.list("dev-list"):
            scene.stop_device(entry["blkdev_id"])
        if left := [scene.alpha.list(verb) for verb in ("dev-list", "channel-list")]:
            if left != [[], []]:
                raise Wrong(f"entries are left at the end: {left}")
        scene.beta.stop()
        scene.alpha.ctl("backend-stop", "-b", str(scene.second), "--force")
        scene.alpha.stop()
        must_be_gone(world)
        world.unmount(scene.small)
        progress.count(rounds=1, minutes=(time.monotonic() - started) / 60, blocks_read_and_checked=scene.ledger.total(READS),
                       refused_verbs=scene.weather.refused, **done)
        progress.save()
        say(", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(done.items())) + "; " + scene.leaks.text())


def run(progress, seed, minutes, say, only=None):
    choose = random.Random(seed)
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        run_round(progress, choose, min(ROUND_S, max(3, end - time.monotonic())), say, only)
