"""Devices of ublk and of the kernel's nbd outlive the daemon that serves them, under cbdd --supervise."""

import json
import os

from guest import Failed
from pair import TIMES

# More than CI has time for: CBD_VM_KILLS=20 CBD_VM_CPUS=4.
KILLS = int(os.environ.get("CBD_VM_KILLS", "0"))
CTL = "CBD_RUN_DIR=/run/beta cbdctrl"
# Requests that were in flight on one of several connections of nbd are sent again after this time.
RESEND_S = 30


def start_supervised(alone):
    """A second daemon, on the region of the first one, which serves the disk: beta, with the device."""
    alone.sh(f"""
        rm -rf /run/beta /var/lib/beta
        cbdd --supervise --run-dir /run/beta --state-dir /var/lib/beta {TIMES} </dev/null >/dev/ttyS0 2>>/tmp/beta.log &
        echo $! >/run/supervisor.pid
        for i in $(seq 400); do [ -S /run/beta/cbdd.sock ] && break; sleep 0.05; done
        for i in $(seq 40); do {CTL} tp-list >/dev/null 2>&1 && break; sleep 0.5; done
        {CTL} tp-reg -H beta -p /dev/shm/region""")


def stop_supervised(alone):
    alone.sh("kill $(cat /run/supervisor.pid); for i in $(seq 300); do [ -e /proc/$(cat /run/supervisor.pid) ] || exit 0; sleep 0.1; done; exit 1")


def start_device(alone, queues):
    """Returns the kernel's name of the device, and its number as users know it."""
    node = alone.sh(f"{CTL} dev-start -b 0 --attach {alone.attach} --queues {queues} --name kept")
    if node != "/dev/cbd/kept":
        raise Failed(f"dev-start printed '{node}'")
    return alone.sh("basename $(readlink -f /dev/cbd/kept)"), alone.sh("stat -L -c %t:%T /dev/cbd/kept")


KILL = """
    old=$(cat /run/beta/lock); from=$(cut -d ' ' -f 1 /proc/uptime); kill -9 $old
    dd if=/dev/{name} of=/dev/null bs=4096 count=1 iflag=direct 2>/tmp/dd.err || {{ cat /tmp/dd.err; exit 1; }}
    to=$(cut -d ' ' -f 1 /proc/uptime)
    while now=$(cat /run/beta/lock 2>/dev/null); [ -z "$now" ] || [ "$now" = $old ]; do sleep 0.05; done
    echo $from $to"""


def kill_worker(alone, name):
    """kill -9; returns how long a read took that began then, in ms."""
    before, after = alone.sh(KILL.format(name=name), limit=120).split()
    return round((float(after) - float(before)) * 1000)


FIO = """
    fio --name=verify --filename=/dev/{name} --ioengine=libaio --direct=1 --rw=randwrite --bsrange=4k-64k --iodepth=8 --numjobs={jobs} --size={size}M \
        --offset_increment={size}M --verify=crc32c --verify_backlog=32 --verify_fatal=1 --time_based --runtime={seconds} --group_reporting \
        --output=/tmp/fio.json --output-format=json >/tmp/fio.err 2>&1 </dev/null &
    echo $! >/tmp/fio.pid"""


def start_fio(alone, name, seconds, jobs):
    alone.sh(FIO.format(name=name, seconds=seconds, jobs=jobs, size=48 // jobs))


def fio_is_clean(alone, limit):
    """No error and no wrong block; returns the longest that a request took, in ms."""
    alone.guest.wait_until("that fio ends", "[ ! -e /proc/$(cat /tmp/fio.pid) ]", limit=limit)
    text = alone.sh("cat /tmp/fio.json")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"] != 0 or job["write"]["total_ios"] == 0:
        raise Failed(f"fio ended with error {job['error']} after {job['write']['total_ios']} writes: {text[:text.index('{')]}{alone.sh('cat /tmp/fio.err')}")
    return round(max(job[way]["lat_ns"]["max"] for way in ("read", "write")) / 1e6)


def describe(alone, queues, pauses, longest):
    pauses = sorted(pauses)
    print(f"vm:       {alone.attach}, {queues} queue(s): {len(pauses)} kills, no error; pauses of new requests: median {pauses[len(pauses) // 2]}, "
          f"longest {pauses[-1]} ms; longest of any request {longest} ms", flush=True)


def worker_is_killed(alone):
    """Kills of the worker under verified writes: no error, the same node, and the pauses are printed."""
    alone.start_backend()
    start_supervised(alone)
    # What waits for the second sending of several queues of nbd would be most of the time of a test in CI.
    several = () if alone.attach == "nbd" and not KILLS else (4,) if alone.attach == "nbd" or alone.cpus >= 4 else (alone.cpus,)
    for queues in (1, *several):
        name, number = start_device(alone, queues)
        kills = KILLS or 3
        start_fio(alone, name, seconds=4 * kills, jobs=queues)
        pauses = []
        for _ in range(kills):
            alone.sh("sleep 1")
            pauses.append(kill_worker(alone, name))
        longest = fio_is_clean(alone, limit=60 + kills * (RESEND_S + 10))
        describe(alone, queues, pauses, longest)
        if start_number(alone) != (name, number):
            raise Failed(f"the device is {start_number(alone)} after the kills, and was {(name, number)}")
        alone.sh(f"{CTL} dev-stop -d 0")
        alone.gone(name)
    stop_supervised(alone)
    alone.sh("cbdctrl backend-stop -b 0")


def successor_dies_between(alone):
    """
    A successor dies between the start and the end of the recovery: before it asked for anything, and when it had asked for all. The next one goes on. With one
    queue: Linux 6.12 fails where some queues were asked for and others not.
    """
    alone.start_backend()
    start_supervised(alone)
    name, number = start_device(alone, 1)
    start_fio(alone, name, seconds=10, jobs=1)
    for queues in (0, 1):
        alone.sh(f"""
            sleep 1; kill -STOP $(cat /run/supervisor.pid); kill -9 $(cat /run/beta/lock)
            testpeer recover {name[5:]} {queues} </dev/null >/tmp/recover.out 2>&1 & peer=$!
            for i in $(seq 200); do grep -q begun /tmp/recover.out && break; sleep 0.1; done
            cat /tmp/recover.out; grep -q begun /tmp/recover.out; kill -9 $peer; kill -CONT $(cat /run/supervisor.pid)
            dd if=/dev/{name} of=/dev/null bs=4096 count=1 iflag=direct""", limit=120)
    fio_is_clean(alone, limit=120)
    if start_number(alone) != (name, number):
        raise Failed(f"the device is {start_number(alone)} after the deaths, and was {(name, number)}")
    alone.sh(f"{CTL} dev-stop -d 0")
    alone.gone(name)
    stop_supervised(alone)
    alone.sh("cbdctrl backend-stop -b 0")


def start_number(alone):
    return alone.sh("basename $(readlink -f /dev/cbd/kept)"), alone.sh("stat -L -c %t:%T /dev/cbd/kept")


def scenarios(kind):
    return [worker_is_killed, *([successor_dies_between] if kind == "ublk" else [])]
