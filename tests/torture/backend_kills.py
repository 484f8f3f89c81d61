"""kill -9 of the disk's daemon under verified load on a mounted ext4: a pause, and nothing else.

Rounds of up to 25 kills; after each the file system is unmounted, checked, mounted again, and every block read."""

import json
import os
import random
import signal
import time

from hosts import World, Wrong, await_, command
from stamps import CYCLE, READS, Ledger, Load, judge, prepare

EVERY = 25


def fio_words(directory, output):
    return ("fio", "--verify_state_save=0", "--name=load", "--thread", f"--directory={directory}", "--size=48M", "--rw=randrw", "--bsrange=4k-128k",
            "--ioengine=io_uring", "--iodepth=16", "--direct=1", "--fsync=64", "--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64",
            "--loops=100000", "--time_based", "--runtime=86400", "--output-format=json", f"--output={output}")


def end_fio(process, output):
    """Ends fio in good order; it must have had no error. Returns bytes written and read back."""
    if process.poll() is not None:
        raise Wrong(f"fio ended by itself with exit code {process.returncode}; see {output}")
    os.killpg(process.pid, signal.SIGINT)
    process.wait(120)
    with open(output, encoding="utf-8") as file:
        text = file.read()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"] or job.get("total_err"):
        raise Wrong(f"fio saw error {job['error']}; see {output}")
    return job["write"]["io_bytes"], job["read"]["io_bytes"]


def advanced(ledger, before):
    """Every writer has ended at least two I/Os since then: one of them began after it."""
    return all(now >= then + 2 for now, then in zip(ledger.progress(), before))


def kill_once(world, alpha, ledger, fio, choose):
    """One kill; returns the longest that an I/O of the load took over it."""
    alpha.must_live()
    before = ledger.progress()
    await_(60, "that the load goes on", lambda: advanced(ledger, before) or ledger.complaint())
    time.sleep(choose.uniform(0.0, 0.4))
    ledger.words[CYCLE] += 1  # a new cycle: the longest is counted anew
    alpha.kill()
    alpha.launch("--restore")
    before = ledger.progress()
    await_(60, "that the load goes on after the restart", lambda: advanced(ledger, before) or ledger.complaint())
    if complaint := ledger.complaint():
        raise Wrong(complaint)
    if fio.poll() is not None:
        raise Wrong(f"fio ended by itself with exit code {fio.returncode}; see {world.work}")
    return ledger.longest()


def run(progress, seed, cycles, say):
    choose = random.Random(seed)
    with World("backend-kills") as world:
        alpha, beta = world.two_hosts()
        alpha.ctl("backend-start", "-p", world.disk("disk", 256 << 20), "-n", "2")
        node = world.attach(beta, "--queues", "2")
        command("mkfs.ext4", "-q", node)
        where = world.mount(node)
        ledger = Ledger(world.path("ledger"), writers=4, blocks=2048, seed=seed)
        prepare(ledger, where)
        left = cycles
        while left > 0:
            batch = min(EVERY, left)
            output = world.path("fio.json")
            fio = world.spawn(*fio_words(where, output))
            load = Load(world, ledger, where)
            pauses = [kill_once(world, alpha, ledger, fio, choose) for _ in range(batch)]
            load.stop()
            if complaint := ledger.complaint():
                raise Wrong(complaint)
            written, verified = end_fio(fio, output)
            world.unmount(where)
            command("e2fsck", "-fn", node)
            world.mount(node)
            if wrong := judge(ledger, where, exact=True):
                raise Wrong(f"{len(wrong)} blocks: " + "; ".join(wrong[:4]))
            alpha.ready()
            if (state := beta.list("dev-list")[0]["state"]) != "running":
                raise Wrong(f"the device is {state} after the kills")
            left -= batch
            progress.count(kills=batch, file_system_checks=1, fio_MiB_verified=verified >> 20, blocks_read_and_checked=ledger.total(READS))
            for index in range(ledger.writers):
                ledger.writer(index)[0][READS] = 0
            progress.sample("pause", pauses)
            progress.save()
            say(f"{batch} kills, longest pause {max(pauses) * 1000:.0f} ms, fio wrote {written >> 20} MiB")
        world.unmount(where)
        beta.ctl("dev-stop", "-d", "0")
        beta.stop()
        alpha.stop()
