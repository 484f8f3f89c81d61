"""Two guests that share a region: 'alpha' serves a disk, 'beta' has the device. What the scenarios are written in."""

import json
import os
import shutil
import subprocess
import tempfile

from guest import Failed, Guest

REGIONS = ("ivshmem", "devdax")
ATTACHMENTS = ("ublk", "nbd", "client")

DISK_MB = 64
# Of a PCI BAR the size must be a power of two; a namespace of an NVDIMM loses 2 MiB of it to its own description.
REGION_MB = {"ivshmem": 64, "devdax": 128}
# Short, and still many times what a loaded machine that emulates its CPUs needs for a beat.
TIMES = "--beat-ms 500 --fence-ms 2000 --dead-ms 4000"


class Pair:
    """
    region: 'ivshmem' or 'devdax'. attach: 'ublk' and 'nbd' are kinds of dev-start --attach; 'client' is the NBD export
    on a Unix socket with nbd-client. logs: directory for the consoles.
    """

    def __init__(self, region, attach, image, accelerator, logs):
        self.region, self.attach, self.logs = region, attach, logs
        os.makedirs(logs, exist_ok=True)
        self._files = tempfile.mkdtemp(prefix="cbd-vm.", dir="/var/tmp")
        self._memory = os.path.join("/dev/shm", os.path.basename(self._files))
        self.region_path = None
        self.node = None
        for path, size in ((self._memory, REGION_MB[region]), (self._file("disk"), DISK_MB), (self._file("state"), 8)):
            with open(path, "wb") as file:
                file.truncate(size << 20)
        # Where alpha keeps its host uuid: it survives a power cut, as the disk of a machine does.
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", self._file("state")], check=True, env=with_sbin(), stdout=subprocess.DEVNULL)
        disks = [part for name in ("disk", "state") for part in (
            "-drive", f"file={self._file(name)},if=none,id={name},format=raw,cache=writeback",
            "-device", f"virtio-blk-pci,drive={name},serial={name}")]
        # One CPU costs a quarter less than two where they are emulated. So alpha, which serves a disk, has one, and of the
        # guests with a device those of one region: the other ones race as on machines.
        self.alpha = Guest("alpha", logs, self._files, image, accelerator, self._shared() + disks, cpus=1)
        self.beta = Guest("beta", logs, self._files, image, accelerator, self._shared(), cpus=2 if region == "ivshmem" else 1)
        self.guests = (self.alpha, self.beta)

    def _file(self, name):
        return os.path.join(self._files, name)

    def _shared(self):
        back = f"memory-backend-file,id=shared,share=on,mem-path={self._memory},size={REGION_MB[self.region]}M"
        if self.region == "ivshmem":
            return ["-object", back, "-device", "ivshmem-plain,memdev=shared"]
        # The second one stays what a namespace is without ndctl: a block device, /dev/pmem1.
        return ["-object", back, "-device", "nvdimm,memdev=shared,id=nvdimm0",
                "-object", "memory-backend-ram,id=unshared,size=32M", "-device", "nvdimm,memdev=unshared,id=nvdimm1"]

    def start(self):
        """Boots both, formats the region, serves alpha's disk, and starts the device on beta."""
        self.alpha.start()
        self.beta.start()
        self.boot_alpha(booted=True)
        if self.region == "devdax":
            # --map=mem: each kernel keeps its page structures in its own memory. With --map=dev they would lie in the
            # namespace, where two kernels overwrite each other's.
            self.alpha.sh("ndctl create-namespace --force --reconfig=namespace0.0 --mode=devdax --map=mem --align=2M")
        self.register(self.alpha, "alpha", "--format --coherence hardware")
        self.alpha.sh("cbdctrl backend-start -p /dev/vda")
        self.boot_beta(booted=True)
        self.register(self.beta, "beta")
        self.start_device()

    def boot_alpha(self, booted=False, keeps_state=True):
        """Boots alpha up to its daemon; without its state it is a machine that nobody has seen before."""
        if not booted:
            self.alpha.start()
        self.alpha.ready()
        self.load(self.alpha, "virtio_blk")
        if keeps_state:
            self.alpha.sh("mkdir -p /var/lib/cbd; mount -t ext4 /dev/vdb /var/lib/cbd")
        self.start_daemon(self.alpha)

    def boot_beta(self, booted=False):
        """Boots beta up to its daemon; it keeps nothing."""
        if not booted:
            self.beta.start()
        self.beta.ready()
        self.load(self.beta, "nbd ublk_drv loop dm_mod")
        self.start_daemon(self.beta)

    def load(self, guest, modules):
        shared = "nfit nd_pmem dax_pmem device_dax" if self.region == "devdax" else ""
        guest.sh(f"for m in ext4 crc32c_generic {modules} {shared}; do modprobe $m; done")

    def start_daemon(self, guest):
        guest.sh(f"""
            rm -f /run/cbd/cbdd.sock
            cbdd {TIMES} </dev/null >/dev/ttyS0 2>/dev/ttyS0 &
            echo $! >/run/cbdd.pid
            # Until the socket is there a look costs next to nothing; a program that starts does, where CPUs are emulated.
            for i in $(seq 400); do [ -S /run/cbd/cbdd.sock ] && break; sleep 0.05; done
            for i in $(seq 40); do cbdctrl tp-list >/dev/null 2>&1 && exit 0; sleep 0.5; done
            exit 1""")

    def register(self, guest, name, options=""):
        guest.sh(f"cbdctrl tp-reg -H {name} -p {self.path(guest)} {options}")

    def path(self, guest):
        """The region as this guest sees it."""
        if self.region == "ivshmem":
            return guest.sh("device=$(grep -l '^0x1110' /sys/bus/pci/devices/*/device); echo ${device%/device}/resource2")
        guest.wait_until("that there is a device-DAX node", "ls /dev/dax*")
        return guest.sh("ls /dev/dax*")

    def start_device(self):
        if self.attach == "client":
            self.node = "/dev/nbd0"
            none = "--attach none" if "--attach" in self.beta.sh("cbdctrl dev-start --help") else ""
            self.beta.sh(f"cbdctrl dev-start -b 0 {none}; nbd-client -unix /run/cbd/cbd0.nbd /dev/nbd0 -b 512")
        else:
            self.node = self.beta.sh(f"cbdctrl dev-start -b 0 --attach {self.attach}")
            if not self.node.startswith("/dev/"):
                raise Failed(f"dev-start printed '{self.node}' and no node")

    def attach_by(self, attach):
        """The device, stopped and started again by another kind of attachment."""
        self.stop_device()
        self.attach = attach
        self.start_device()

    def stop_device(self, options=""):
        if self.attach == "client":
            self.beta.sh("nbd-client -d /dev/nbd0")
        self.beta.sh(f"cbdctrl dev-stop -d 0 {options}")
        self.node = None

    def state(self):
        """What beta says of its device."""
        return json.loads(self.beta.sh("cbdctrl dev-list"))[0]["state"]

    def refused(self, guest, command, code, text):
        """The command ends with that exit code and says that text."""
        result = guest.run(command)
        if result.status != code or text not in result.stderr:
            raise Failed(f"{guest.name}: '{command}' should be refused with {code} and '{text}', but ended with {result.status}: {result.stdout}{result.stderr}")

    def stop(self):
        for guest in (self.alpha, self.beta):
            guest.kill()
        shutil.rmtree(self._files, ignore_errors=True)
        if os.path.exists(self._memory):
            os.unlink(self._memory)


def with_sbin():
    return dict(os.environ, PATH=os.environ["PATH"] + ":/usr/sbin:/sbin")
