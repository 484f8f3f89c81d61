"""A good client among a hundred bad ones: each of its reads is answered, and new connections of its own are greeted. Prints how
long that took, with and without the others.

crowd.py SOCKET SECONDS does it with an export that is there already.
"""

import json
import os
import random
import subprocess
import sys
import time

from bad_clients import Client
from hosts import World, Wrong

BAD = 100
DISK = 64 << 20
# What the good client reads: from a block to the most that a client has for itself.
LENGTHS = (4096, 4096, 4096, 65536, 256 << 10)
CONNECT_EVERY = 20
# No measure: what takes so long is not answered.
HANGS_S = 60


def pattern(seed):
    return random.Random(seed).randbytes(DISK)


def measure(path, seconds, content):
    """Seconds that each read took, and each new connection with its first read."""
    reads, connects = [], []
    client = Client(path, HANGS_S).go()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        length = random.choice(LENGTHS)
        offset = random.randrange(0, (DISK - length) // 4096) * 4096
        start = time.monotonic()
        data = client.read(offset, length)
        reads.append(time.monotonic() - start)
        if data != content[offset:offset + length]:
            raise Wrong(f"{length} bytes at {offset} are not what was written")
        if len(reads) % CONNECT_EVERY == 0:
            start = time.monotonic()
            other = Client(path, HANGS_S).go()
            other.read(0, 4096)
            connects.append(time.monotonic() - start)
            other.close()
        time.sleep(0.001)
    client.close()
    return reads, connects


def describe(times):
    times = sorted(times)
    return f"{len(times)}, p99 {times[len(times) * 99 // 100] * 1000:.1f} ms, longest {times[-1] * 1000:.1f} ms"


def against(path, seconds, seed, say):
    """Reads with and without the crowd; returns the times of the reads of both."""
    content = pattern(seed)
    client = Client(path, HANGS_S).go()
    for at in range(0, DISK, 1 << 20):
        client.write(at, content[at:at + (1 << 20)])
    client.close()
    try:
        alone = measure(path, min(3, seconds), content)
        say(f"without others: reads {describe(alone[0])}; connections {describe(alone[1])}")
        crowd = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "bad_clients.py"), path, str(BAD)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            if crowd.stdout.readline() != "ready\n":
                raise Wrong("the bad clients do not come up")
            among = measure(path, seconds, content)
            counts, _ = crowd.communicate("", 60)
        finally:
            crowd.kill()
            crowd.wait()
    except (OSError, EOFError) as error:
        raise Wrong(f"the good client was not served: {type(error).__name__} {error}") from None
    kinds = json.loads(counts)
    now = sum(kind[1] for kind in kinds.values())
    say(f"among {BAD} bad ones: reads {describe(among[0])}; connections {describe(among[1])}")
    say(f"{now} of the bad ones were connected at the end; they came {sum(kind[0] for kind in kinds.values())} times: "
        + ", ".join(f"{name} {kind[0]}" for name, kind in kinds.items()))
    return alone[0], among[0]


def run(progress, seed, minutes, say):
    with World("crowd") as world:
        alpha, beta = world.two_hosts()
        alpha.ctl("backend-start", "-p", world.disk("disk", DISK))
        beta.ctl("dev-start", "-b", "0", "--attach", "none")
        socket = os.path.join(beta.run_dir, "cbd0.nbd")
        alone, among = against(socket, minutes * 60, seed, say)
        for host in (alpha, beta):
            host.must_live()
        beta.ctl("dev-stop", "-d", "0")
        beta.stop()
        alpha.stop()
    progress.count(minutes=minutes, reads_among_bad_clients=len(among))
    progress.sample("read_without_others", alone)
    progress.sample("read_among_bad_clients", among)
    progress.save()


if __name__ == "__main__":
    try:
        against(sys.argv[1], float(sys.argv[2]), random.randrange(1 << 32), lambda text: print(f"note: {text}", flush=True))
    except Wrong as wrong:
        sys.exit(f"FAIL: {wrong}")
