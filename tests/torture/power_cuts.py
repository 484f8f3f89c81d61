"""Power cuts: a disk that records runs below the backend while files are synced and transactions committed through the
device; then the disk is put together as a cut at some moment could have left it, and must have all that was promised."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

from hosts import World, Wrong, await_, command
from promises import Promises, prepare
from recorder import FLUSH, RECORD, WRITE

HERE = os.path.dirname(os.path.abspath(__file__))
SIZE = 96 << 20
PER_RECORDING = 50
SECONDS = 6
SECTOR = 512


class Recording:
    """The writes and flushes of a disk, and what it may hold after a cut."""

    def __init__(self, path):
        self.writes, self.flushes = [], []
        with open(path, "rb") as log:
            while len(head := log.read(RECORD.size)) == RECORD.size:
                kind, came, answered, offset, length = RECORD.unpack(head)
                if kind == WRITE:
                    self.writes.append((answered or sys.maxsize, came, offset, log.read(length)))
                elif kind == FLUSH and answered:
                    self.flushes.append((answered, came))
        self.writes.sort(key=lambda write: write[:2])
        self.flushes.sort()
        self.image = None
        self.applied = 0

    def covered_until(self, moment):
        """Writes that were answered before this are on the medium at that moment."""
        return max((came for answered, came in self.flushes if answered <= moment), default=0)

    def cut(self, moment, image_path, cut_path, choose):
        """Writes the disk as a cut could leave it. Moments must not go back from call to call."""
        covered = self.covered_until(moment)
        with open(image_path, "r+b") as image:
            while self.applied < len(self.writes) and self.writes[self.applied][0] < covered:
                _, _, offset, data = self.writes[self.applied]
                image.seek(offset)
                image.write(data)
                self.applied += 1
        command("cp", "--sparse=always", image_path, cut_path)
        open_writes = [write for write in self.writes[self.applied:] if write[1] <= moment]
        keep = choose.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        kept = torn = 0
        with open(cut_path, "r+b") as disk:
            for _, _, offset, data in open_writes:
                if choose.random() >= keep:
                    continue
                kept += 1
                sectors = range(0, len(data), SECTOR)
                if choose.random() < 0.2:
                    torn += 1
                    share = choose.random()
                    sectors = [at for at in sectors if choose.random() < share]
                for at in sectors:
                    disk.seek(offset + at)
                    disk.write(data[at:at + SECTOR])
        return len(open_writes), kept, torn


def record(world, seed, bare):
    """One recording under load, with a kill of the disk's daemon in the middle; bare: without CBD. Returns when the load
    began and ended."""
    log, path = world.path("log"), world.path("socket")
    server = world.spawn(sys.executable, os.path.join(HERE, "recorder.py"), path, str(SIZE), log)
    await_(30, "that the recorder listens", lambda: os.path.exists(path))
    disk = world.path("disk")
    with open(disk, "wb"):
        pass
    fuse = world.spawn("nbdfuse", disk, f"nbd+unix:///?socket={path}")
    world.mounts.append(disk)
    await_(30, "that the disk is there", lambda: os.path.exists(disk) and os.stat(disk).st_size == SIZE)
    if bare:
        node = command("losetup", "-f", "--show", "--direct-io=on", disk).strip()
        world.loops.append(node)
    else:
        alpha, beta = world.two_hosts("64M")
        alpha.ctl("backend-start", "-p", disk)
        node = world.attach(beta, "--queues", "2")
    command("mkfs.ext4", "-q", node)
    where = world.mount(node)
    prepare(where)
    began = time.monotonic_ns()
    load = world.spawn(sys.executable, os.path.join(HERE, "promises.py"), where, world.path("notes"), str(SECONDS), str(seed), stderr=subprocess.PIPE, text=True)
    if not bare:
        time.sleep(SECONDS * random.Random(seed).uniform(0.3, 0.7))
        alpha.kill()
        # Nothing tells whether a file that FUSE serves is the same one again.
        alpha.launch()
        alpha.ready()
        alpha.ctl("backend-start", "-b", "0", "-p", disk)
    _, errors = load.communicate(timeout=120)
    if load.returncode != 0:
        raise Wrong(f"the load failed: {errors.strip()}")
    ended = time.monotonic_ns()
    world.unmount(where)
    if bare:
        command("losetup", "-d", node)
        world.loops.remove(node)
    else:
        beta.ctl("dev-stop", "-d", "0")
        beta.stop()
        alpha.ctl("backend-stop", "-b", "0")
        alpha.stop()
    world.unmount(disk)
    fuse.wait(30)
    server.send_signal(signal.SIGKILL)
    server.wait()
    return began, ended


def run_bare(progress, seed, cuts, say):
    """The same without CBD: what breaks here, too, is the file system's or the database's own."""
    run(progress, seed, cuts, say, bare=True)


def run(progress, seed, cuts, say, bare=False):
    choose = random.Random(seed)
    left = cuts
    while left > 0:
        batch = min(PER_RECORDING, left)
        with World("power-cuts") as world:
            began, ended = record(world, choose.randrange(1 << 32), bare)
            recording, promises = Recording(world.path("log")), Promises(world.path("notes"))
            os.unlink(world.path("log.image"))
            image, cut = world.region + ".image", world.region + ".cut"
            try:
                with open(image, "wb") as file:
                    file.truncate(SIZE)
                for moment in sorted(choose.randrange(began, ended) for _ in range(batch)):
                    judge_cut(world, recording, promises, moment, image, cut, choose, progress)
            except Wrong:
                shutil.copy(cut, world.path("cut"))
                raise
            finally:
                for path in (image, cut):
                    if os.path.exists(path):
                        os.unlink(path)
            progress.count(recordings=1, recorded_writes=len(recording.writes), recorded_flushes=len(recording.flushes))
            progress.save()
            say(f"{batch} cuts through {len(recording.writes)} writes and {len(recording.flushes)} flushes, {len(promises.notes)} notes")
        left -= batch


def judge_cut(world, recording, promises, moment, image, cut, choose, progress):
    lost, kept, torn = recording.cut(moment, image, cut, choose)
    where = world.mount(cut, "cut-mount", "-o", "loop")
    wrong, count = promises.judge(where, moment)
    world.unmount(where)
    command("e2fsck", "-fn", cut)
    if wrong:
        raise Wrong(f"a cut at {moment} that kept {kept} of {lost} open writes: {len(wrong)} promises broken: " + "; ".join(wrong[:4]))
    progress.count(cuts=1, promises_held=count, open_writes=lost, of_these_kept=kept, of_these_torn=torn)
