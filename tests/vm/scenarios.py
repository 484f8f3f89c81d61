"""What must hold between two machines. Each scenario leaves the pair with a device that works and is not mounted."""

import time

from guest import Failed

# Before it returns everything that was written is on the medium, by a flush that was sent after the last write: 'sync'
# writes, and fdatasync of the device itself flushes.
SETTLE = "sync; sync -d {node}"
EIO = "Input/output error"


def equal(what, is_, should):
    if is_ != should:
        raise Failed(f"{what} is '{is_}', not '{should}'")


def files(pair):
    """mkfs, mount, write, remount and verify; and alpha finds the same files on its disk."""
    beta = pair.beta
    beta.sh(f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {pair.node}; mount {pair.node} /mnt")
    beta.sh("""
        for i in 1 2 3 4 5 6 7 8; do head -c ${i}00000 /dev/urandom >/mnt/file$i; done
        cd /mnt; sha256sum file* >/tmp/sums; cp /tmp/sums .; cd /; umount /mnt""")
    beta.sh(f"mount {pair.node} /mnt; cd /mnt; sha256sum -c /tmp/sums; cd /; umount /mnt; e2fsck -f -n {pair.node}")
    pair.stop_device()
    pair.alpha.sh("cbdctrl backend-stop -b 0; mount -t ext4 -o ro /dev/vda /mnt; cd /mnt; sha256sum -c sums; cd /; umount /mnt")
    pair.alpha.sh("cbdctrl backend-start -p /dev/vda")
    pair.start_device()


def partitions_and_lvm(pair):
    """A partition table, and logical volumes on one of its partitions."""
    beta, node = pair.beta, pair.node
    beta.sh(f"dd if=/dev/zero of={node} bs=1M count=2 conv=fsync; printf '2048,20480\\n,\\n' | sfdisk -q --no-reread --no-tell-kernel {node}")
    beta.sh(f"blockdev --rereadpt $(readlink -f {node})")
    name = beta.sh(f"basename $(readlink -f {node})")
    beta.wait_until("that there are two partitions", f"[ $(ls -d /sys/block/{name}/{name}p* | wc -l) = 2 ] && [ -b /dev/{name}p2 ]")
    beta.sh(f"mkfs.ext4 -q -F /dev/{name}p1; mount /dev/{name}p1 /mnt; echo one >/mnt/f; umount /mnt")
    lvm = "lvm {} --config 'devices {{ scan=[\"/dev\"] filter=[\"a|/dev/" + name + "p2|\",\"r|.*|\"] }} activation {{ udev_sync=0 udev_rules=0 }} global {{ locking_type=1 }} backup {{ backup=0 archive=0 }}' {}"
    beta.sh("\n".join([
        "mkdir -p /etc/lvm /run/lvm /run/lock/lvm",
        # The scenario may have been here before, with another attachment and the same disk.
        f"dd if=/dev/zero of=/dev/{name}p2 bs=1M count=1 conv=fsync",
        lvm.format("pvcreate", f"-qq -y /dev/{name}p2"),
        lvm.format("vgcreate", f"-qq vg /dev/{name}p2"),
        lvm.format("lvcreate", "-qq -y -W n -Z n -L 16M -n data vg"),
        "mkfs.ext4 -q -F /dev/mapper/vg-data; mount /dev/mapper/vg-data /mnt",
        "head -c 3000000 /dev/urandom >/mnt/f; sha256sum /mnt/f >/tmp/sum; umount /mnt",
        lvm.format("vgchange", "-qq -an vg"),
        lvm.format("vgchange", "-qq -ay vg"),
        "mount /dev/mapper/vg-data /mnt; sha256sum -c /tmp/sum; umount /mnt; e2fsck -f -n /dev/mapper/vg-data",
        lvm.format("vgchange", "-qq -an vg"),
        f"mount /dev/{name}p1 /mnt; [ $(cat /mnt/f) = one ]; umount /mnt",
        # The next scenario takes all of the disk.
        f"dd if=/dev/zero of={node} bs=1M count=2 conv=fsync; blockdev --rereadpt $(readlink -f {node})",
    ]), limit=120)


# What is written is made once, so that an emulated CPU does little but write: file I has pool W % 5 in turn, another each time.
WRITER = """
    for i in 0 1 2 3 4; do head -c 100000 /dev/urandom >/tmp/pool$i; done
    cat >/tmp/writer.sh <<'END'
i=0
while [ ! -e /tmp/writer.stop ]; do
    i=$((i + 1))
    if dd if=/tmp/pool$((i % 5)) of=/mnt/data$((i % 8)) bs=100000 conv=fsync 2>/tmp/writer.dd; then
        echo $((i % 5)) >/tmp/last$((i % 8))
        echo "ok $i" >>/tmp/writer.log
    else
        echo "error $i: $(cat /tmp/writer.dd)" >>/tmp/writer.log
    fi
    sleep 0.1
done
END
    rm -f /tmp/writer.stop; : >/tmp/writer.log
    sh /tmp/writer.sh </dev/null >/dev/null 2>&1 & echo $! >/tmp/writer.pid"""


def write_all_the_time(pair):
    """A mounted file system, and a process on beta that writes to it, with fsync, and notes each result."""
    pair.beta.sh(f"mkfs.ext4 -q -F {pair.node}; mount {pair.node} /mnt" + WRITER)
    pair.beta.wait_until("that beta writes", "[ $(wc -l </tmp/writer.log) -ge 3 ]")


def stands_still(pair):
    """beta says that its device waits, and the writer waits with it; returns how much it has written."""
    beta = pair.beta
    beta.wait_until("that beta misses alpha", "cbdctrl dev-list | grep -q '\"state\": \"waiting\"'", limit=30)
    before = int(beta.sh("wc -l </tmp/writer.log"))
    time.sleep(2)
    equal("what was written without a backend", int(beta.sh("wc -l </tmp/writer.log")), before)
    return before


def wrote_without_error(pair, before):
    """The writer has gone on, no write of it failed, and all that it wrote can be read."""
    beta = pair.beta
    beta.wait_until("that beta writes again", f"[ $(wc -l </tmp/writer.log) -ge {before + 3} ]")
    beta.sh("touch /tmp/writer.stop; while [ -e /proc/$(cat /tmp/writer.pid) ]; do sleep 0.1; done")
    equal("the errors of the writer", beta.sh("grep -v ^ok /tmp/writer.log || true"), "")
    beta.sh(f"umount /mnt; mount {pair.node} /mnt")
    beta.sh("for i in 0 1 2 3 4 5 6 7; do [ ! -e /tmp/last$i ] || cmp /mnt/data$i /tmp/pool$(cat /tmp/last$i); done; umount /mnt")
    beta.sh(f"rm -f /tmp/last?; e2fsck -f -n {pair.node}")
    equal("the device", pair.state(), "running")


def backend_process_is_killed(pair):
    """kill -9 of alpha's daemon under writes: beta sees a pause and no error."""
    alpha = pair.alpha
    write_all_the_time(pair)
    alpha.sh("kill -9 $(cat /run/cbdd.pid)")
    before = stands_still(pair)
    pair.start_daemon(alpha)
    pair.register(alpha, "alpha")
    equal("the id of the backend", alpha.sh("cbdctrl backend-start -b 0 -p /dev/vda"), "0")
    wrote_without_error(pair, before)


def backend_guest_is_paused(pair):
    """alpha stands still for longer than its dead-time, and goes on where it was: a pause for beta, too."""
    write_all_the_time(pair)
    pair.alpha.freeze()
    before = stands_still(pair)
    pair.alpha.thaw()
    wrote_without_error(pair, before)


def host_id(guest, name):
    """The id of a registered host, as a guest lists it."""
    return guest.sh(f"""cbdctrl host-list | tr -d ' \\n' | grep -o '"host_id":[0-9]*,"hostname":"{name}"' | tr -dc 0-9""")


def device_guest_is_killed(pair):
    """
    beta's power is cut under writes. Nothing proves its death to alpha, so what it had is kept until an operator vouches
    for it. What was flushed is on the disk, and beta, back again, finds a file system that its journal makes whole.
    """
    alpha, beta = pair.alpha, pair.beta
    write_all_the_time(pair)
    beta.sh("cp /mnt/data1 /mnt/kept; sync")
    kept = beta.sh("sha256sum </mnt/kept")
    beta.kill()
    pair.boot_beta()
    gone = host_id(alpha, "beta")
    pair.refused(beta, f"cbdctrl tp-reg -H beta -p {pair.path(beta)}", 4, f"nothing proves that host {gone} is dead")
    pair.refused(alpha, f"cbdctrl host-clear --host-id {gone}", 4, "--fenced")
    equal("the blkdevs of the backend", alpha.sh("cbdctrl backend-list | tr -d ' \\n' | grep -o 'blkdevs\":[^]]*]'"), 'blkdevs":[0]')
    alpha.sh(f"cbdctrl host-clear --host-id {gone} --fenced")
    pair.register(beta, "beta")
    pair.start_device()
    beta.sh(f"mount {pair.node} /mnt")
    equal("the file that was flushed", beta.sh("sha256sum </mnt/kept"), kept)
    beta.sh(f"umount /mnt; e2fsck -f -n {pair.node}")


def regions_are_refused(pair):
    """What looks like memory between machines and is not, with the reason."""
    alpha, path = pair.alpha, pair.path(pair.alpha)
    start = "cbdctrl tp-reg -H other --format --coherence hardware -p"
    if pair.region == "ivshmem":
        pair.refused(alpha, f"{start} {path}_wc", 2, "whose stores are not ordered")
        pair.refused(alpha, f"{start} {path[:-1]}0", 2, "region of 256 bytes is too small")
        pair.refused(alpha, f"{start} {path[:-9]}config", 2, "not a PCI resource")
    else:
        pair.refused(alpha, f"{start} /dev/pmem1", 2, "make it device-DAX")
    pair.refused(pair.beta, f"cbdctrl tp-reg -H other -p {path} --format --force --coherence hardware", 4, "registered by this daemon already")


def write_and_settle(pair):
    """A mounted file system of which everything has been flushed."""
    pair.beta.sh(f"mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {pair.node}; mount -o noatime {pair.node} /mnt")
    pair.beta.sh("head -c 3000000 /dev/urandom >/mnt/f; sha256sum /mnt/f >/tmp/sum; " + SETTLE.format(node=pair.node))


def goes_on(pair):
    """The file system that write_and_settle() left goes on, with all that was in it."""
    pair.beta.wait_until("that the device runs", "cbdctrl dev-list | grep -q '\"state\": \"running\"'", limit=30)
    pair.beta.sh(f"""
        echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/sum
        head -c 1000000 /dev/urandom >/mnt/g; sha256sum /mnt/g >>/tmp/sum
        umount /mnt; mount {pair.node} /mnt; sha256sum -c /tmp/sum; umount /mnt; e2fsck -f -n {pair.node}""")


def backend_guest_reboots(pair):
    """
    alpha's power is cut while nothing is uncovered, and it comes back: its host uuid, and a heartbeat that stood still,
    prove that its earlier life is over. Without an operator and without an error the device goes on.
    """
    write_and_settle(pair)
    pair.alpha.kill()
    pair.boot_alpha()
    pair.register(pair.alpha, "alpha")
    equal("the id of the backend", pair.alpha.sh("cbdctrl backend-start -b 0 -p /dev/vda"), "0")
    goes_on(pair)


def backend_guest_is_replaced(pair):
    """
    alpha's power is cut, and a machine with another host uuid takes the disk over: nothing proves the death of the
    first one, so it takes an operator's word.
    """
    write_and_settle(pair)
    gone = host_id(pair.beta, "alpha")
    pair.alpha.kill()
    pair.boot_alpha(keeps_state=False)
    alpha, beta = pair.alpha, pair.beta
    pair.refused(alpha, f"cbdctrl tp-reg -H alpha -p {pair.path(alpha)}", 4, f"nothing proves that host {gone} is dead")
    pair.register(alpha, "gamma")
    pair.refused(alpha, "cbdctrl backend-start -b 0 -p /dev/vda", 4, "start with --fenced")
    pair.refused(beta, f"cbdctrl host-clear --host-id {gone}", 4, "--fenced")
    equal("the device", pair.state(), "waiting")
    equal("the id of the backend", alpha.sh("cbdctrl backend-start -b 0 -p /dev/vda --fenced"), "0")
    goes_on(pair)
    beta.sh(f"cbdctrl host-clear --host-id {gone} --fenced")
    equal("the hosts", beta.sh("cbdctrl host-list | grep hostname | sort | tr -d ' \\n'"), '"hostname":"beta","hostname":"gamma",')
    # From here on alpha is a machine that keeps its state again.
    pair.stop_device()
    alpha.sh("cbdctrl backend-stop -b 0; cbdctrl tp-unreg")
    alpha.sh("kill $(cat /run/cbdd.pid); while [ -e /proc/$(cat /run/cbdd.pid) ]; do sleep 0.1; done")
    alpha.sh("mount -t ext4 /dev/vdb /var/lib/cbd")
    pair.start_daemon(alpha)
    pair.register(alpha, "alpha")
    alpha.sh("cbdctrl backend-start -p /dev/vda")
    pair.start_device()


def backend_guest_loses_writes(pair):
    """
    alpha's power is cut after a write was acknowledged that no flush covers, and it comes back. The write may be gone:
    the device says so and answers EIO, until it is stopped and started again.
    """
    alpha, beta = pair.alpha, pair.beta
    beta.sh(f"dd if=/dev/urandom of={pair.node} bs=64k count=4 oflag=direct")
    alpha.kill()
    pair.boot_alpha()
    pair.register(alpha, "alpha")
    alpha.sh("cbdctrl backend-start -b 0 -p /dev/vda")
    beta.wait_until("that the device fails", "cbdctrl dev-list | grep -q 'acknowledged writes may be lost'", limit=30)
    for direction in (f"if={pair.node} of=/dev/null iflag=direct", f"if=/dev/zero of={pair.node} oflag=direct"):
        result = beta.run(f"dd {direction} bs=64k count=1")
        if result.status == 0 or EIO not in result.stderr:
            raise Failed(f"dd {direction} ended with {result.status}: {result.stderr}, not with {EIO}")
    pair.stop_device()
    pair.start_device()
    beta.sh(f"dd if=/dev/urandom of=/tmp/data bs=64k count=4; dd if=/tmp/data of={pair.node} bs=64k oflag=direct conv=fsync")
    beta.sh(f"dd if={pair.node} bs=64k count=4 iflag=direct | cmp - /tmp/data")


def backend_grows(pair):
    """
    A disk of alpha becomes larger while beta has a file system on it mounted: beta's kernel takes the size, and the file
    system, too; ublk, which cannot before Linux 6.16, says so, and has it after a stop and a start.
    """
    alpha, beta = pair.alpha, pair.beta
    alpha.sh("truncate -s 16M /dev/shm/grows; cbdctrl backend-start -p /dev/shm/grows")
    node = beta.sh(f"cbdctrl dev-start -b 1 --attach {pair.attach} --queues 1")
    name = beta.sh(f"basename $(readlink -f {node})")
    beta.sh(f"mkfs.ext4 -q -F {node}; mount {node} /mnt; head -c 3000000 /dev/urandom >/mnt/f; sha256sum /mnt/f >/tmp/sum; sync")
    equal("what backend-resize prints", alpha.sh("cbdctrl backend-resize -b 1 --size 48M"), str(48 << 20))
    listed = "cbdctrl dev-list | tr -d ' \\n' | grep -o '\"blkdev_id\":1.*'"
    if pair.attach == "ublk":
        beta.wait_until("that dev-list says what ublk cannot", f"{listed} | grep -q 'needsLinux6.16'", limit=20)
        equal("the size of the node", beta.sh(f"cat /sys/block/{name}/size"), str(16 << 11))
        beta.sh("echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/sum; umount /mnt; cbdctrl dev-stop -d 1")
        beta.sh(f"cbdctrl dev-start -b 1 --attach {pair.attach} --queues 1; mount {node} /mnt")
        name = beta.sh(f"basename $(readlink -f {node})")
    beta.wait_until("that the kernel has the size", f"[ $(cat /sys/block/{name}/size) = {48 << 11} ]", limit=20)
    beta.sh(f"/cbd/resize2fs {node}; head -c 20000000 /dev/zero >/mnt/big; sync; echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /tmp/sum")
    pair.refused(alpha, "cbdctrl backend-resize -b 1 --size 16M", 4, "cannot shrink to 16777216")
    pair.refused(beta, "cbdctrl backend-resize -b 1 --size 64M", 6, "resize it there")
    beta.sh(f"umount /mnt; e2fsck -f -n {node}; cbdctrl dev-stop -d 1")
    alpha.sh("cbdctrl backend-stop -b 1; e2fsck -f -n /dev/shm/grows; rm /dev/shm/grows")


ALL = [
    files, regions_are_refused, partitions_and_lvm, backend_grows, backend_process_is_killed, backend_guest_is_paused,
    backend_guest_reboots, backend_guest_is_replaced, backend_guest_loses_writes, device_guest_is_killed,
]

# What nbd-client, which dev-start knows nothing of, cannot do.
NOT_WITH_CLIENT = {backend_grows}

# What does not depend on how the device is attached: once per region is enough, with these.
ONCE = {regions_are_refused, backend_guest_reboots, backend_guest_loses_writes, device_guest_is_killed}
ONCE_WITH = {"ivshmem": "ublk", "devdax": "nbd"}
# What does not depend on the region: with these pairs, so once per kind.
ANYWHERE = {partitions_and_lvm, backend_grows}
# What depends on neither.
ONE = {backend_guest_is_paused: "ivshmem", backend_guest_is_replaced: "devdax"}


def is_due(scenario, region, attach):
    """Whether a run of everything has this one with that region and that attachment."""
    if scenario in ONE and ONE[scenario] != region:
        return False
    return scenario not in ONCE | ANYWHERE | set(ONE) or ONCE_WITH.get(region, attach) == attach
