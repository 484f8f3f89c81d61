"""The user of the device is a QEMU guest on its NBD socket, with reconnect-delay: kills of the worker, and no error inside."""

import json
import os
import random
import shutil
import subprocess
import sys
import time

from hosts import ROOT, World, Wrong, await_

VM = os.path.join(ROOT, "tests", "vm")
SIZE = 64 << 20
# Longer than any worker is away.
RECONNECT_S = 60
LIMIT_S = 120


def image_for(world):
    """(kernel, initramfs) of a guest with busybox and fio."""
    sys.path.insert(0, VM)
    import image
    kernel = image.newest_kernel()
    root = world.path("root")
    os.makedirs(os.path.join(root, "bin"))
    image.MODULES = ["virtio_pci", "virtio_blk"]
    image.add_modules(kernel, os.path.join(root, "lib", "modules", os.listdir(os.path.join(kernel, "modules"))[0]))
    shutil.copy("/bin/busybox", os.path.join(root, "bin", "busybox"))
    shutil.copy(os.path.join(VM, "init"), os.path.join(root, "init"))
    os.chmod(os.path.join(root, "init"), 0o755)
    image.add_program(root, shutil.which("fio"), "/cbd/fio")
    names = subprocess.run(["find", ".", "-print0"], cwd=root, capture_output=True, check=True).stdout
    initramfs = world.path("initramfs")
    with open(initramfs, "wb") as file:
        subprocess.run(["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"], cwd=root, input=names, stdout=file, check=True)
    shutil.rmtree(root)
    return image.boot_file(kernel, world.work), initramfs


def run(progress, seed, kills, say, slay, note):
    choose = random.Random(seed)
    with World("outlive-guest") as world:
        images = image_for(world)
        import guest
        alpha, beta = world.host("alpha", "--supervise"), world.host("beta", "--supervise")
        alpha.ctl("tp-reg", "-H", "alpha", "-p", world.region, "--format", "--size", "128M")
        beta.ctl("tp-reg", "-H", "beta", "-p", world.region)
        alpha.ctl("backend-start", "-p", world.disk("disk", SIZE))
        socket = world.path("nbd")
        beta.ctl("dev-start", "-b", "0", "--attach", "none", "--name", world.device, "--nbd", f"unix:{socket}", "--queues", "2")
        machine = guest.Guest("guest", world.work, world.work, images, "tcg", [
            "-blockdev", f"driver=nbd,node-name=cbd,server.type=unix,server.path={socket},reconnect-delay={RECONNECT_S}",
            "-device", "virtio-blk-pci,drive=cbd"], memory="512M", cpus=1)
        machine.start()
        try:
            machine.ready(LIMIT_S)
            machine.sh("modprobe virtio_blk || true")
            machine.wait_until("that the disk is there", "[ -b /dev/vda ]")
            machine.sh("fio --verify_state_save=0 --name=guest --thread --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=8 --rw=randrw --bsrange=4k-64k "
                       f"--size={SIZE} --fsync=64 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --loops=100000 --time_based --runtime=86400 "
                       "--output-format=json --output=/tmp/fio.json >/tmp/fio.out 2>&1 & echo $! >/tmp/pid")
            say("the guest runs")

            def written():
                return int(machine.sh("kill -0 $(cat /tmp/pid) || { cat /tmp/fio.out >&2; exit 1; }; awk '{print $7}' /sys/block/vda/stat", LIMIT_S))

            for _ in range(kills):
                before = written()
                await_(LIMIT_S, "that the guest writes", lambda: written() > before, 0.2)
                time.sleep(choose.uniform(0.1, 1.5))
                slay(beta)
                dead = written()
                await_(LIMIT_S, "that the guest goes on", lambda: written() > dead + 64, 0.2)
                progress.count(kills=1)
            text = machine.sh("kill -INT $(cat /tmp/pid); i=0; while kill -0 $(cat /tmp/pid) 2>/dev/null && [ $i -lt 100 ]; do sleep 0.5; i=$((i + 1)); done; cat /tmp/fio.json", LIMIT_S)
            job = json.loads(text[text.index("{"):])["jobs"][0]
            if job["error"] or job.get("total_err"):
                raise Wrong(f"fio in the guest saw error {job['error']}")
            kernel = machine.sh("dmesg | grep -i 'error\\|hung\\|reset' | grep -i 'vda\\|virtio\\|blk' || true")
            if kernel:
                raise Wrong(f"the guest's kernel says: {kernel}")
            progress.count(fio_MiB_written=job["write"]["io_bytes"] >> 20, fio_MiB_verified=job["read"]["io_bytes"] >> 20)
            note("longest_of_the_guest", max(job[kind]["clat_ns"]["max"] for kind in ("read", "write")) / 1e9)
        except guest.Failed as failed:
            raise Wrong(str(failed)) from None
        finally:
            machine.kill()
        beta.ctl("dev-stop", "-d", "0")
        beta.stop()
        alpha.stop()
