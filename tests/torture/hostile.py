"""A peer that rewrites the region while two daemons carry load: one device on another transport and one spared device on
the same one stay correct; the others may have errors, but no daemon ends, hangs or calls anything a bug."""

import hashlib
import os
import random
import re
import subprocess
import time

from hosts import ROOT, World, Wrong, await_
from stamps import ERRORS, FLUSHES, READS, Ledger, Load, judge, prepare

PEER = os.path.join(ROOT, "artifacts/bin/Cbd.TestPeer/release/Cbd.TestPeer")
ROUND_S = 20
BLOCKS = 1024


class Watched:
    """A device with a stamped load, as a file that nbdfuse makes of its NBD export."""

    def __init__(self, world, name, host, transport, backend, seed, patient):
        self.world, self.name, self.host, self.transport, self.backend, self.patient = world, name, host, transport, backend, patient
        self.directory = world.path(name)
        os.makedirs(self.directory)
        self.file = os.path.join(self.directory, "stamps.0")
        with open(self.file, "wb"):
            pass
        self.ledger = Ledger(world.path(name + ".ledger"), writers=1, blocks=BLOCKS, seed=seed)
        self.device = self.load = None

    def start(self):
        uri = self.host.ctl("dev-start", "-t", str(self.transport), "-b", str(self.backend), "--attach", "none", "--queues", "2")
        self.device = next(entry for entry in self.host.list("dev-list", "-t", str(self.transport)) if entry["dev_name"] == uri)["blkdev_id"]
        self.fuse = self.world.spawn("nbdfuse", self.file, uri, stderr=subprocess.DEVNULL)
        self.world.mounts.append(self.file)
        await_(30, f"that {self.name} is there", lambda: os.stat(self.file).st_size > 0)

    def run(self):
        prepare(self.ledger, self.directory)
        self.load = Load(self.world, self.ledger, self.directory, self.patient)

    def channels(self):
        return [entry["channel_id"] for entry in self.host.list("channel-list", "-t", str(self.transport)) if entry["blkdev_id"] == self.device]

    def end(self):
        """Whatever its state: the load and its file are gone, and the device is told to."""
        if self.load:
            self.load.kill()
        subprocess.run(["umount", "-l", self.file], stderr=subprocess.DEVNULL, check=False)
        if self.file in self.world.mounts:
            self.world.mounts.remove(self.file)
        return self.host.try_ctl("dev-stop", "-t", str(self.transport), "-d", str(self.device), "--force") if self.device is not None else None


def must_be_sound(world, hosts, spared):
    """What holds whatever a peer does."""
    for host in hosts:
        host.must_live()
        with open(os.path.join(host.home, "log"), encoding="utf-8", errors="replace") as log:
            text = log.read()
        if found := re.search(r"^.*( crit |housekeeping failed|this is a bug).*$", text, re.MULTILINE):
            raise Wrong(f"{host.name}: {found.group()}")
    for device in spared:
        before = device.ledger.progress()
        await_(60, f"that {device.name} goes on", lambda: device.ledger.progress()[0] > before[0] + 1 or device.ledger.complaint())
        if complaint := device.ledger.complaint():
            raise Wrong(f"{device.name}: {complaint}")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def attempt(host, *words):
    """A verb that may fail, but neither hang nor be a bug; its line or None."""
    try:
        status, out, err = host.try_ctl(*words)
    except subprocess.TimeoutExpired:
        raise Wrong(f"{host.name}: cbdctrl {' '.join(words)} does not answer") from None
    if status == 1 or "this is a bug" in err:
        raise Wrong(f"{host.name}: cbdctrl {' '.join(words)}: {err}")
    return out if status == 0 else None


def run(progress, seed, minutes, say):
    choose = random.Random(seed)
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        run_round(progress, choose, min(ROUND_S, max(3, end - time.monotonic())), say)


def run_round(progress, choose, seconds, say):
    with World("hostile") as world:
        alpha, beta, gamma = (world.host(name) for name in ("alpha", "beta", "gamma"))
        second = world.region + ".second"
        size = BLOCKS * 4096
        try:
            alpha.ctl("tp-reg", "-H", "alpha", "-p", world.region, "--format", "--size", "32M", "--hosts", "8", "--backends", "8", "--blkdevs", "8", "--channel-size", "1M")
            alpha.ctl("tp-reg", "-H", "alpha", "-p", second, "--format", "--size", "16M")
            for host in (beta, gamma):
                host.ctl("tp-reg", "-H", host.name, "-p", world.region)
            beta.ctl("tp-reg", "-H", "beta", "-p", second)
            for transport, name in ((0, "spared"), (0, "victim"), (1, "other"), (1, "idle")):
                alpha.ctl("backend-start", "-t", str(transport), "-p", world.disk(name + ".disk", size))
            gamma.ctl("backend-start", "-p", world.disk("gamma.disk", size))
            devices = [Watched(world, name, beta, transport, backend, choose.randrange(1 << 32), patient)
                       for name, transport, backend, patient in (("spared", 0, 0, False), ("other", 1, 0, False), ("victim", 0, 1, True), ("gamma-victim", 0, 2, True))]
            for device in devices:
                device.start()
                device.run()
            spared, victims = devices[:2], devices[2:]
            idle = digest(world.path("idle.disk"))
            # The entries of the spared device, and of the hosts that it lives on.
            ids = {entry["hostname"]: str(entry["host_id"]) for entry in alpha.list("host-list")}
            words = [f"hosts={ids['alpha']},{ids['beta']}", "backends=0", f"blkdevs={spared[0].device}", "channels=" + ",".join(map(str, spared[0].channels()))]
            peer = world.spawn(PEER, "hostile", world.region, str(choose.randrange(1 << 31)), str(int(seconds)), *words, stdout=subprocess.PIPE, text=True)
            turns = 0
            while peer.poll() is None:
                time.sleep(1)
                must_be_sound(world, (alpha, beta, gamma), spared)
                turns += 1
                for verb in ("host-list", "backend-list", "dev-list", "channel-list"):
                    attempt(choose.choice((alpha, beta)), verb)
                if turns % 6 == 3:
                    # What was destroyed is started again, as far as it can be.
                    attempt(beta, "dev-start", "-b", str(choose.randrange(1, 8)), "--attach", "none")
                    attempt(alpha, "backend-start", "-p", "memory:4M")
                if turns % 6 == 5:
                    gamma.kill()
                    gamma.start()
                    attempt(gamma, "tp-reg", "-H", f"gamma{turns}", "-p", world.region)
            strikes = peer.stdout.read().strip()
            if peer.returncode != 0:
                raise Wrong(f"the hostile peer ended with exit code {peer.returncode}")
            must_be_sound(world, (alpha, beta, gamma), spared)
            for device in spared:
                device.load.stop()
                if wrong := judge(device.ledger, device.directory, exact=True):
                    raise Wrong(f"{device.name}: {len(wrong)} blocks: " + "; ".join(wrong[:3]))
            for device in victims:
                device.end()
            for device in spared:
                if (stopped := device.end()) and stopped[0] != 0:
                    raise Wrong(f"{device.name} cannot be stopped: {stopped[2]}")
            if digest(world.path("idle.disk")) != idle:
                raise Wrong("a disk that nobody used has changed")
            for name in ("spared", "victim", "other", "idle", "gamma"):
                if (now := os.path.getsize(world.path(name + ".disk"))) != size:
                    raise Wrong(f"{name}.disk has {now} bytes and had {size}")
            must_be_sound(world, (alpha, beta), [])
            errors = sum(device.ledger.total(ERRORS) for device in victims)
            progress.count(rounds=1, minutes=seconds / 60, blocks_read_and_checked=sum(device.ledger.total(READS) for device in spared),
                           flushes=sum(device.ledger.total(FLUSHES) for device in spared), errors_of_victims=errors)
            progress.save()
            say(f"{seconds:.0f} s: {strikes}; victims had {errors} errors")
        finally:
            if os.path.exists(second):
                os.unlink(second)
