"""kill -9 of the device's daemon under load: its users get errors; after a restart nothing is stuck, and what was
flushed is there."""

import glob
import os
import random
import subprocess
import time

from backend_kills import advanced
from hosts import World, Wrong, await_, command, loops_of
from stamps import ERRORS, WRONG, Ledger, Load, judge, prepare

LIMIT_S = 60


def nothing_left(alpha, dead):
    """Nothing of the dead daemon is there any more: entries, channels, loop devices, links."""
    seen = wanted = None

    def clean():
        nonlocal seen, wanted
        hosts = sorted((entry["hostname"], entry["state"], entry["alive"]) for entry in alpha.list("host-list"))
        devices = [(entry["blkdev_id"], entry["state"], entry["alive"]) for entry in alpha.list("dev-list", "-a")]
        channels = [(entry["state"], entry["quarantined"]) for entry in alpha.list("channel-list")]
        backends = [(entry["state"], entry["blkdevs"]) for entry in alpha.list("backend-list")]
        seen = (hosts, len(devices), channels, backends, loops_of([dead]))
        wanted = ([("alpha", "active", "alive"), ("beta", "active", "alive")], 1, [("attached", False)] * 2,
                  [("active", [devices[0][0]])] if devices else None, [])
        return seen == wanted
    try:
        await_(LIMIT_S, "that nothing of the dead daemon is left", clean, 0.05)
    except Wrong as error:
        raise Wrong(f"{error}: {seen} is not {wanted}") from None


def run(progress, seed, cycles, say):
    choose = random.Random(seed)
    with World("device-kills") as world:
        alpha, beta = world.two_hosts("64M")
        alpha.ctl("backend-start", "-p", world.disk("disk", 128 << 20))
        node = world.attach(beta, "--queues", "2")
        command("mkfs.ext4", "-q", node)
        where = world.mount(node)
        ledger = Ledger(world.path("ledger"), writers=4, blocks=1024, seed=seed)
        prepare(ledger, where)
        for cycle in range(cycles):
            load = Load(world, ledger, where)
            before = ledger.progress()
            await_(LIMIT_S, "that the load runs", lambda: advanced(ledger, before) or ledger.complaint())
            time.sleep(choose.uniform(0.0, 0.5))
            if complaint := ledger.complaint():
                raise Wrong(complaint)
            dead = beta.process.pid
            beta.must_live()
            beta.kill()
            killed = time.monotonic()
            # Every writer gets an error and ends; none is stuck in the kernel.
            try:
                load.process.wait(LIMIT_S)
            except subprocess.TimeoutExpired:
                raise Wrong("a writer is stuck after the kill") from None
            if wrong := sum(ledger.writer(index)[0][WRONG] for index in range(ledger.writers)):
                raise Wrong(f"{wrong} wrong blocks were read: {ledger.complaint()}")
            if ledger.total(ERRORS) < ledger.writers:
                raise Wrong("a writer saw no error although its device was killed")
            # In half of the cycles the next daemon meets a file system that is still mounted.
            mounted = choose.random() < 0.5
            if not mounted:
                world.unmount(where)
            beta.start("--restore")
            if mounted:
                world.unmount(where)
            nothing_left(alpha, dead)
            back = time.monotonic() - killed
            devices = beta.list("dev-list")
            if len(devices) != 1 or devices[0]["state"] != "running":
                raise Wrong(f"after the restart beta has the devices {devices}; log: {beta.log_end()}")
            node = devices[0]["dev_name"]
            # Mounting replays the journal; then the file system must be whole.
            world.mount(node)
            if wrong := judge(ledger, where):
                raise Wrong(f"cycle {cycle}: {len(wrong)} blocks: " + "; ".join(wrong[:4]))
            if cycle % 5 == 4 or cycle == cycles - 1:
                world.unmount(where)
                command("e2fsck", "-fn", node)
                world.mount(node)
                progress.count(file_system_checks=1)
            progress.count(kills=1, blocks_judged=ledger.writers * ledger.blocks)
            progress.sample("until_all_is_back", [back])
            progress.save()
        say(f"{cycles} kills")
        world.unmount(where)
        beta.ctl("dev-stop", "-d", str(devices[0]["blkdev_id"]))
        beta.stop()
        if left := [alpha.list(verb) for verb in ("dev-list", "channel-list")]:
            if left != [[], []]:
                raise Wrong(f"entries are left at the end: {left}")
        alpha.stop()
        if left := loops_of(beta.pids):
            raise Wrong(f"loop devices are left at the end: {left}")
        if left := [link for link in glob.glob("/dev/cbd*") if os.path.islink(link) and not os.path.exists(link)]:
            raise Wrong(f"links are left at the end: {left}")
