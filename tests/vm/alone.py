"""One guest whose daemon serves a disk and has the device on it: what an attachment owes the kernel that it serves."""

import os
import shutil
import tempfile
import time

import outlive
from guest import Failed, Guest
from pair import TIMES

REGION = "alone"
KINDS = ("ublk", "nbd")
DISK = "/dev/shm/disk"
DISK_MB = 64
CPUS = int(os.environ.get("CBD_VM_CPUS", "2"))


class Alone:
    """region: 'alone'. attach: a kind of dev-start --attach. logs: directory for the console."""

    def __init__(self, region, attach, image, accelerator, logs):
        self.attach = attach
        os.makedirs(logs, exist_ok=True)
        self._files = tempfile.mkdtemp(prefix="cbd-vm.", dir="/var/tmp")
        self.cpus = CPUS
        self.guest = Guest("alone", logs, self._files, image, accelerator, [], memory="768M", cpus=CPUS)
        self.guests = (self.guest,)
        self.sh = self.guest.sh

    def start(self):
        self.boot()
        self.sh(f"""
            for m in ext4 crc32c_generic ublk_drv nbd; do modprobe $m; done
            truncate -s {DISK_MB}M {DISK}""")
        self.start_daemon("--format")

    def boot(self):
        self.guest.start()
        self.guest.ready()

    def start_daemon(self, options=""):
        self.sh(f"""
            rm -f /run/cbd/cbdd.sock
            cbdd {TIMES} </dev/null >/dev/ttyS0 2>>/tmp/cbdd.log &
            echo $! >/run/cbdd.pid
            # Until the socket is there a look costs next to nothing; a program that starts does, where CPUs are emulated.
            for i in $(seq 400); do [ -S /run/cbd/cbdd.sock ] && break; sleep 0.05; done
            for i in $(seq 40); do cbdctrl tp-list >/dev/null 2>&1 && break; sleep 0.5; done
            cbdctrl tp-reg -H alone -p /dev/shm/region {"--size 64M" if options else ""} {options}""")

    def start_backend(self, options=""):
        self.sh(f"cbdctrl backend-start -p {DISK} {options}")

    def start_device(self, options="", kind=None):
        """Returns the kernel's name of the device, such as ublkb0."""
        node = self.sh(f"cbdctrl dev-start -b 0 --attach {kind or self.attach} {options}")
        equal("what dev-start prints", node, "/dev/cbd0")
        return self.sh("basename $(readlink -f /dev/cbd0)")

    def stop_all(self, options=""):
        self.sh(f"cbdctrl dev-stop -d 0 {options}; cbdctrl backend-stop -b 0")

    def queue(self, name, attribute):
        return self.sh(f"cat /sys/block/{name}/queue/{attribute}")

    def refused(self, command, code, text):
        """The command ends with that exit code and says that text."""
        result = self.guest.run(command)
        if result.status != code or text not in result.stderr:
            raise Failed(f"'{command}' should be refused with {code} and '{text}', but ended with {result.status}: {result.stdout}{result.stderr}")

    def gone(self, name):
        """The kernel has the device no more."""
        if self.attach == "nbd":
            equal("the size of a disconnected device", self.sh(f"cat /sys/block/{name}/size"), "0")
            return
        self.guest.wait_until("that the device is gone", f"[ ! -e /dev/{name} ] && [ ! -e /sys/class/ublk-char/ublkc{name[5:]} ]", limit=20)

    def stop(self):
        self.guest.kill()
        shutil.rmtree(self._files, ignore_errors=True)


def equal(what, is_, should):
    if is_ != should:
        raise Failed(f"{what} is '{is_}', not '{should}'")


def holds(what, value):
    if not value:
        raise Failed(f"{what} does not hold")


def file_system(alone):
    """mkfs, mount, write, remount, verify, with both sizes of a logical block; and what was read and written allocates nothing."""
    for block in (512, 4096):
        alone.start_backend(f"--block-size {block}")
        name = alone.start_device()
        equal("the logical block", alone.queue(name, "logical_block_size"), str(block))
        alone.sh("mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/cbd0; mount /dev/cbd0 /mnt")
        alone.sh("""
            for i in 1 2 3 4 5 6 7 8 9; do head -c ${i}00000 /dev/urandom >/mnt/file$i; done
            cd /mnt; sha256sum file* >/tmp/sums; cd /; umount /mnt
            mount /dev/cbd0 /mnt; cd /mnt; sha256sum -c /tmp/sums; cd /; umount /mnt; e2fsck -f -n /dev/cbd0
            dd if=/dev/cbd0 of=/dev/null bs=4096 count=200 iflag=direct
            : >/tmp/cbdd.log""")
        alone.stop_all()
        alone.gone(name)
        holds("that /dev/cbd0 is gone", alone.sh("[ ! -e /dev/cbd0 ] && echo yes") == "yes")
        lines = [line for line in alone.sh("cat /tmp/cbdd.log").splitlines() if " served " in line]
        equal("the queues that reported", len(lines), 2)
        for line in lines:
            holds(f"'0 of them failed' in '{line}'", " 0 of them failed" in line)
        # Threads allocate a little once; one object for each request would be more than this.
        total = sum(int(line.rsplit(" ", 1)[1]) for line in lines)
        requests = sum(int(line.split(" served ")[1].split(" ")[0]) for line in lines)
        holds(f"{requests} requests allocated {total} bytes", requests >= 100 and total < 8 * requests)
        # The image is a file system by itself.
        alone.sh(f"mount -o ro,loop {DISK} /mnt 2>/dev/null || {{ modprobe loop; mount -o ro,loop {DISK} /mnt; }}; cd /mnt; sha256sum -c /tmp/sums; cd /; umount /mnt")


def properties(alone):
    """What lsblk -D -t shows, and what a database trusts: a volatile cache with flush and FUA."""
    alone.start_backend("--block-size 512")
    name = alone.start_device("--queues 2")
    equal("the size", alone.sh(f"cat /sys/block/{name}/size"), str(DISK_MB * 2048))
    equal("the write cache", alone.queue(name, "write_cache"), "write back")
    equal("FUA", alone.queue(name, "fua"), "1")
    equal("the queues", alone.sh(f"ls /sys/block/{name}/mq | wc -l"), "2")
    line = alone.sh(f"/cbd/lsblk -n -b -d -o LOG-SEC,PHY-SEC,MIN-IO,DISC-GRAN,DISC-MAX,WSAME,RO /dev/{name}").split()
    physical = "4096" if alone.attach == "ublk" else "512"
    equal("block sizes in lsblk", line[:3], ["512", physical, physical])
    holds(f"discards of some size: {line}", int(line[3]) >= 512 and int(line[4]) >= 1 << 20)
    holds("write-zeroes", int(alone.queue(name, "write_zeroes_max_bytes")) >= 1 << 20)
    alone.stop_all()


def discard_and_zeroes(alone):
    """A discard shrinks the backend's file; zeroes read as zeroes; data beside both stays."""
    alone.start_backend()
    alone.start_device()
    alone.sh("head -c 33554432 /dev/urandom >/tmp/data; dd if=/tmp/data of=/dev/cbd0 bs=1M oflag=direct")
    before = int(alone.sh(f"du -k {DISK} | cut -f 1"))
    holds(f"{before} KiB of 32 MiB", before >= 32 << 10)
    alone.sh("/cbd/blkdiscard -o 8M -l 16M /dev/cbd0")
    after = int(alone.sh(f"du -k {DISK} | cut -f 1"))
    equal("KiB given back", before - after, 16 << 10)
    alone.sh("/cbd/blkdiscard -z -o 28M -l 1M /dev/cbd0")
    alone.sh("""
        echo 3 >/proc/sys/vm/drop_caches
        dd if=/dev/cbd0 bs=1M skip=28 count=1 | cmp -n 1048576 - /dev/zero
        dd if=/dev/cbd0 bs=1M count=8 | cmp -n 8388608 - /tmp/data
        dd if=/tmp/data bs=1M skip=29 count=3 of=/tmp/tail; dd if=/dev/cbd0 bs=1M skip=29 count=3 | cmp - /tmp/tail
        rm /tmp/data /tmp/tail""")
    alone.stop_all()


def read_only(alone):
    """A read-only device takes no write, and a file system on it mounts read-only."""
    alone.start_backend()
    alone.start_device()
    alone.sh("mkfs.ext4 -q -F /dev/cbd0; mount /dev/cbd0 /mnt; echo kept >/mnt/f; umount /mnt; cbdctrl dev-stop -d 0")
    name = alone.start_device("--read-only")
    equal("the read-only flag", alone.sh(f"cat /sys/block/{name}/ro"), "1")
    result = alone.guest.run("dd if=/dev/zero of=/dev/cbd0 bs=4096 count=1 conv=fsync,notrunc")
    holds(f"that a write fails: {result.stderr}", result.status != 0 and "not permitted" in result.stderr)
    holds("that it mounts", alone.sh("mount -o ro /dev/cbd0 /mnt; cat /mnt/f; umount /mnt") == "kept")
    alone.stop_all()


def stopped_while_mounted(alone):
    """A mounted device is not stopped, unless forced: then its users get errors, and nothing is left when they go."""
    alone.start_backend()
    name = alone.start_device()
    alone.sh("mkfs.ext4 -q -F /dev/cbd0; mount /dev/cbd0 /mnt; echo x >/mnt/f; sync")
    alone.refused("cbdctrl dev-stop -d 0", 4, "mounted")
    alone.sh("echo y >/mnt/f; sync")
    alone.sh("cbdctrl dev-stop -d 0 --force", limit=90)
    result = alone.guest.run("dd if=/dev/zero of=/mnt/g bs=4096 count=1 conv=fsync")
    holds("that writes fail", result.status != 0)
    alone.guest.run("umount /mnt")
    alone.gone(name)
    alone.sh("cbdctrl backend-stop -b 0")


def daemon_is_killed(alone):
    """kill -9 under writes: the next daemon removes what is left, and starts a device again, with all that was flushed."""
    alone.start_backend()
    name = alone.start_device()
    alone.sh("""
        mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/cbd0; mount /dev/cbd0 /mnt
        head -c 3000000 /dev/urandom >/mnt/f; sha256sum /mnt/f >/tmp/sum; sync; sync -d /dev/cbd0
        (i=0; while :; do i=$((i + 1)); dd if=/dev/urandom of=/mnt/w bs=64k count=16 conv=fsync || exit; done) >/dev/null 2>&1 &
        echo $! >/tmp/writer; sleep 1; kill -9 $(cat /run/cbdd.pid); sleep 1; : >/tmp/cbdd.log""")
    holds("that the device is still there", alone.sh(f"[ -b /dev/{name} ] && cat /sys/block/{name}/size") != "0")
    alone.start_daemon()
    alone.start_backend()
    alone.start_device()
    holds("that the leftover is named in the log", f"/dev/{name} of " in alone.sh("cat /tmp/cbdd.log"))
    alone.guest.wait_until("that the writer fails", "[ ! -e /proc/$(cat /tmp/writer) ]", limit=30)
    alone.guest.run("umount /mnt || umount -l /mnt")
    # The journal is played back, as after a power cut.
    alone.sh("mount /dev/cbd0 /mnt; sha256sum -c /tmp/sum; umount /mnt; e2fsck -f -n /dev/cbd0")
    alone.stop_all()


def many_queues(alone):
    """A device with one queue, and one with more than this kernel has CPUs."""
    alone.start_backend()
    alone.start_device("--queues 1")
    alone.sh("dd if=/dev/cbd0 of=/dev/null bs=1M count=4 iflag=direct; cbdctrl dev-stop -d 0")
    if alone.attach == "ublk":
        alone.refused(f"cbdctrl dev-start -b 0 --attach ublk --queues {CPUS + 1}", 10, f"--queues {CPUS}")
        alone.gone("ublkb0")
        equal("the devices", alone.sh("cbdctrl dev-list -o json").split(), ["[]"])
    else:
        alone.start_device("--queues 3")
        alone.sh("dd if=/dev/cbd0 of=/dev/null bs=1M count=4 iflag=direct; cbdctrl dev-stop -d 0")
    alone.sh("cbdctrl backend-stop -b 0")


def modes(alone):
    """Every mode of polling serves; in mode sleep nothing is lost while both sides sleep."""
    alone.start_backend()
    for mode in ("adaptive", "sleep", "busy"):
        alone.start_device(f"--mode {mode} --queues 1")
        alone.sh("for i in 1 2 3; do dd if=/dev/cbd0 of=/dev/null bs=4096 count=50 iflag=direct; sleep 0.2; done")
        alone.sh("cbdctrl dev-stop -d 0")
    alone.sh("cbdctrl backend-stop -b 0")


PEER = """
    rm -f /tmp/in /tmp/out; mkfifo /tmp/in
    testpeer attach {kind} /dev/shm/part 33554432 {queues} </tmp/in >/tmp/out 2>/tmp/err &
    sleep 100000 >/tmp/in & echo $! >/tmp/holder
    for i in $(seq 300); do [ -s /tmp/out ] && break; sleep 0.1; done
    head -n 1 /tmp/out"""


def start_peer(alone, queues):
    """Returns the node of the device that a program without a daemon has attached."""
    alone.sh("truncate -s 64M /dev/shm/part")
    return alone.sh(PEER.format(kind=alone.attach, queues=queues))


def stop_peer(alone):
    equal("the end", peer(alone, "stop"), "stopped")
    alone.sh("kill $(cat /tmp/holder)")


def peer(alone, command):
    """One line to the peer that has the attachment without a daemon, and its answer."""
    before = int(alone.sh("wc -l </tmp/out"))
    alone.sh(f"echo '{command}' >/tmp/in")
    alone.guest.wait_until(f"that the peer answers '{command}'", f"[ $(wc -l </tmp/out) -gt {before} ] || {{ tail -n 5 /tmp/err; ps | grep testpeer; dmesg | tail -n 3; false; }}", limit=30)
    return alone.sh("tail -n 1 /tmp/out")


def resized(alone):
    """Growth while a file system is mounted, or the kernel version that is needed; backend-resize says it at once."""
    grown(alone, alone.attach)


def resized_by_fuse(alone):
    """The same with a loop device on a file over FUSE."""
    alone.sh("grep -q fuse$ /proc/filesystems || modprobe fuse; modprobe loop")
    grown(alone, "fuse")


def grown(alone, kind):
    alone.sh("truncate -s 24M /dev/shm/grows; cbdctrl backend-start -p /dev/shm/grows")
    name = alone.start_device("--queues 2", kind)
    alone.sh("mkfs.ext4 -q -F /dev/cbd0; mount /dev/cbd0 /mnt; head -c 3000000 /dev/urandom >/mnt/f; sha256sum /mnt/f >/tmp/sum; sync")
    result = alone.guest.run("cbdctrl backend-resize -b 0 --size 56M")
    equal("the size that is printed", (result.status, result.stdout.strip()), (0, str(56 << 20)))
    if kind == "ublk":
        holds(f"the note of ublk: {result.stderr}", f"device 0: /dev/{name} cannot change its size on this kernel" in result.stderr and "needs Linux 6.16" in result.stderr)
        equal("the size", alone.sh(f"cat /sys/block/{name}/size"), str(24 << 11))
    else:
        equal("the notes", result.stderr, "")
        equal("the size", alone.sh(f"cat /sys/block/{name}/size"), str(56 << 11))
        alone.sh("/cbd/resize2fs /dev/cbd0; head -c 28000000 /dev/zero >/mnt/big; sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/sum; rm /mnt/big")
    alone.refused("cbdctrl backend-resize -b 0 --size 24M", 4, "cannot shrink to 25165824 while it is served")
    alone.sh("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/sum; umount /mnt; e2fsck -f -n /dev/cbd0")
    alone.stop_all()
    if kind != "fuse":
        alone.gone(name)
    alone.sh("rm /dev/shm/grows")


def connections_are_lost(alone):
    """
    Lost connections of nbd are made anew: with one, under writes, of which those in flight are sent again; with two,
    while nothing is in flight.
    """
    for queues, numbers in ((1, (0, 0)), (2, (0, 1))):
        node = start_peer(alone, queues)
        alone.sh(f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {node}; mount {node} /mnt; sync; : >/tmp/bad; rm -f /tmp/enough")
        if queues == 1:
            alone.sh("""
                (while [ ! -e /tmp/enough ]; do dd if=/bin/busybox of=/mnt/w bs=64k conv=fsync || echo failed >>/tmp/bad; done) >/dev/null 2>&1 &
                echo $! >/tmp/writer""")
        for number in numbers:
            before = int(alone.sh("grep -c 'made anew' /tmp/err || true"))
            equal("the answer", peer(alone, f"cut {number}"), "ok")
            alone.guest.wait_until("that the connection is made anew", f"[ $(grep -c 'made anew' /tmp/err) -gt {before} ]", limit=20)
        if queues == 1:
            alone.sh("sleep 1; touch /tmp/enough")
            alone.guest.wait_until("that the writer ends", "[ ! -e /proc/$(cat /tmp/writer) ]", limit=90)
        alone.sh("dd if=/dev/urandom of=/mnt/x bs=64k count=16 conv=fsync", limit=20)
        equal("the errors of the writer", alone.sh("cat /tmp/bad"), "")
        alone.sh(f"umount /mnt; e2fsck -f -n {node}")
        stop_peer(alone)


def backend_is_away(alone):
    """
    For longer than the block layer's usual patience of 30 s a device does not answer: nothing fails, nothing is sent a
    second time, no connection is given up; and it all goes on.
    """
    node = start_peer(alone, 2)
    alone.sh("dmesg -c >/dev/null; : >/tmp/err")
    equal("the answer", peer(alone, "hold"), "ok")
    alone.sh(f"""
        head -c 4194304 /dev/urandom >/tmp/data
        dd if=/tmp/data of={node} bs=1M oflag=direct conv=fsync >/tmp/dd 2>&1 && echo ok >>/tmp/dd & echo $! >/tmp/writer""")
    time.sleep(45)
    holds("that the writer waits", alone.sh("[ -e /proc/$(cat /tmp/writer) ] && echo yes") == "yes")
    equal("the answer", peer(alone, "release"), "ok")
    alone.guest.wait_until("that the writer ends", "[ ! -e /proc/$(cat /tmp/writer) ]", limit=60)
    equal("the end of the writer", alone.sh("tail -n 1 /tmp/dd"), "ok")
    alone.sh(f"echo 3 >/proc/sys/vm/drop_caches; dd if={node} bs=1M count=4 iflag=direct | cmp - /tmp/data; rm /tmp/data")
    complaints = alone.sh("dmesg | grep -i 'timed out\\|dead\\|failed\\|error' || true; cat /tmp/err")
    equal("what the kernel and the peer say", complaints, "")
    stop_peer(alone)


def scenarios(kind):
    """Those of a kind of attachment."""
    return [
        properties, file_system, discard_and_zeroes, read_only, many_queues, backend_is_away, resized,
        # The modes are the queues', whatever is attached to them.
        *([resized_by_fuse, connections_are_lost] if kind == "nbd" else [modes]), stopped_while_mounted, daemon_is_killed,
        *outlive.scenarios(kind),
    ]
