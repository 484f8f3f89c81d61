"""The kernel and the initial RAM file system of the guests, made from packages of Debian and from out/."""

import lzma
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(ROOT, "artifacts", "vm", "cache")
KERNEL = r"^linux-image-6\.12[.0-9]*\+deb[0-9]+(\+[0-9]+)?-amd64-unsigned$"

# What the guests load; dependencies are found. What a kernel has built in need not be a module.
MODULES = [
    "virtio_pci", "virtio_blk", "ublk_drv", "nbd", "dm_mod", "loop", "ext4", "crc32c_generic", "crc32c_intel",
    "nfit", "nd_pmem", "dax_pmem", "device_dax", "fuse",
]

# Programs of the guests besides busybox, with their libraries. The first of the paths that is there is taken.
PROGRAMS = {
    "mke2fs": ["/sbin/mke2fs"], "e2fsck": ["/sbin/e2fsck"], "resize2fs": ["/sbin/resize2fs"],
    "sfdisk": ["/sbin/sfdisk"], "lvm": ["/sbin/lvm"], "dmsetup": ["/sbin/dmsetup"],
    "nbd-client": ["/usr/sbin/nbd-client", "/sbin/nbd-client"], "ndctl": ["/usr/bin/ndctl"],
    "lsblk": ["/bin/lsblk"], "blkdiscard": ["/sbin/blkdiscard"],
}


class Unavailable(Exception):
    """Something that this machine does not have; the tests are skipped with this reason."""


# Where a bzImage has its kernel when that is compressed with zstd.
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def sort_key(name):
    return [int(n) for n in re.findall(r"\d+", name)]


def newest_kernel():
    """Directory of the newest 6.12 kernel, unpacked: vmlinuz and modules/. From the cache if there is no network."""
    os.makedirs(CACHE, exist_ok=True)
    found = subprocess.run(["apt-cache", "pkgnames", "linux-image-6.12"], capture_output=True, text=True).stdout.split() \
        if shutil.which("apt-cache") else []
    names = sorted((n for n in found if re.match(KERNEL, n)), key=sort_key)
    cached = sorted((n for n in os.listdir(CACHE) if re.match(KERNEL, n)), key=sort_key)
    if names and names[-1] not in cached:
        error = fetch_kernel(names[-1])
        if error is None:
            return os.path.join(CACHE, names[-1])
        if not cached:
            raise Unavailable(f"the package {names[-1]} could not be downloaded: {error}")
        print(f"vm: {names[-1]} could not be downloaded, using {cached[-1]}", flush=True)
    elif not names and not cached:
        raise Unavailable("no kernel: apt knows no package linux-image-6.12*-amd64-unsigned (apt-get update?), and none is in " + CACHE)
    return os.path.join(CACHE, (cached if cached else names)[-1])


def fetch_kernel(name):
    """Downloads and unpacks a kernel package into the cache; returns the error as text, or None."""
    scratch = os.path.join(CACHE, ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    os.makedirs(os.path.join(scratch, "all"))
    try:
        got = subprocess.run(["apt-get", "download", name], cwd=scratch, capture_output=True, text=True, timeout=300)
        package = [f for f in os.listdir(scratch) if f.endswith(".deb")]
        if got.returncode != 0 or not package:
            return got.stderr.strip().splitlines()[-1] if got.stderr.strip() else f"apt-get ended with {got.returncode}"
        subprocess.run(["dpkg", "-x", package[0], "all"], cwd=scratch, check=True)
        kept = os.path.join(scratch, "kept")
        os.makedirs(kept)
        boot = os.path.join(scratch, "all", "boot")
        os.rename(os.path.join(boot, next(f for f in os.listdir(boot) if f.startswith("vmlinuz"))), os.path.join(kept, "vmlinuz"))
        for base in ("lib/modules", "usr/lib/modules"):
            modules = os.path.join(scratch, "all", base)
            if os.path.isdir(modules):
                os.rename(modules, os.path.join(kept, "modules"))
        # Last, under its name: an interrupted download leaves nothing that looks whole.
        os.rename(kept, os.path.join(CACHE, name))
        return None
    except subprocess.TimeoutExpired:
        return "no answer within 300 s"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def boot_file(kernel, scratch):
    """
    The kernel as QEMU starts it: an ELF file that is decompressed here, once, and not by each emulated CPU that boots. One that
    is compressed in another way, or where zstd fails, boots as it is.
    """
    packed = os.path.join(kernel, "vmlinuz")
    with open(packed, "rb") as file:
        data = file.read()
    start = data.find(ZSTD_MAGIC)
    if start < 0:
        return packed
    # Behind the end of the frame follows more of the bzImage, of which zstd complains.
    unpacked = subprocess.run(["zstd", "-d", "-q", "-c"], input=data[start:], capture_output=True).stdout
    if not unpacked.startswith(b"\x7fELF"):
        return packed
    path = os.path.join(scratch, "vmlinux")
    with open(path, "wb") as file:
        file.write(unpacked)
    return path


def read_module(path):
    with open(path, "rb") as file:
        data = file.read()
    return lzma.decompress(data) if path.endswith(".xz") else data


def plain(name):
    return name.replace("-", "_")


def add_modules(kernel, target):
    """Copies MODULES and all that they depend on, uncompressed, and writes the modules.dep that modprobe reads."""
    files = {}
    for folder, _, names in os.walk(os.path.join(kernel, "modules")):
        for name in names:
            match = re.match(r"(.+)\.ko(\.xz)?$", name)
            if match:
                files[plain(match[1])] = os.path.join(folder, name)
    os.makedirs(target)
    needs = {}
    queue = list(MODULES)
    while queue:
        name = plain(queue.pop())
        if name in needs or name not in files:
            continue
        data = read_module(files[name])
        with open(os.path.join(target, f"{name}.ko"), "wb") as file:
            file.write(data)
        # .modinfo: strings 'depends=a,b' (include/linux/module.h), from the linker's list of unresolved symbols.
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        needs[name] = [plain(d) for d in depends[1].decode().split(",") if d] if depends else []
        queue += needs[name]

    def closure(name, seen):
        for need in needs.get(name, []):
            if need not in seen:
                seen.append(need)
                closure(need, seen)
        return seen

    with open(os.path.join(target, "modules.dep"), "w") as file:
        for name in sorted(needs):
            file.write(f"{name}.ko: {' '.join(f'{n}.ko' for n in closure(name, []))}\n")


def add_program(root, source, target):
    """Copies a program to target, and the libraries that ldd names to where its loader looks for them."""
    destination = os.path.join(root, target.lstrip("/"))
    os.makedirs(os.path.dirname(destination), exist_ok=True)
    shutil.copy(source, destination)
    listed = subprocess.run(["ldd", source], capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+)", listed):
        copy = os.path.join(root, library.lstrip("/"))
        if not os.path.exists(copy):
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copy(os.path.realpath(library), copy)


def test_peer():
    """Publishes the tests' own program for the guests, which have no .NET."""
    out = os.path.join(ROOT, "artifacts", "out", "Cbd.TestPeer")
    # With a runtime named it has a folder of its own, and what runs on the installed .NET stays as it was built.
    command = ["dotnet", "publish", os.path.join(ROOT, "tests", "Cbd.TestPeer"), "-c", "Release", "-r", "linux-x64", "-v", "quiet", "-o", out]
    try:
        made = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, DOTNET_CLI_TELEMETRY_OPTOUT="1", DOTNET_NOLOGO="1"))
    except FileNotFoundError:
        raise Unavailable("the .NET SDK, which publishes Cbd.TestPeer for the guests, is not installed") from None
    if made.returncode != 0:
        raise Unavailable(f"Cbd.TestPeer cannot be published: {(made.stdout + made.stderr).strip()[-500:]}")
    return os.path.join(out, "Cbd.TestPeer")


def build(kernel, scratch, out):
    """Returns (kernel, initramfs) for the guests, from an unpacked package; both are written into the directory scratch."""
    root = os.path.join(scratch, "root")
    os.makedirs(os.path.join(root, "bin"))
    release = os.listdir(os.path.join(kernel, "modules"))[0]
    add_modules(kernel, os.path.join(root, "lib", "modules", release))
    shutil.copy("/bin/busybox", os.path.join(root, "bin", "busybox"))
    shutil.copy(os.path.join(ROOT, "tests", "vm", "init"), os.path.join(root, "init"))
    os.chmod(os.path.join(root, "init"), 0o755)
    for name in ("cbdd", "cbdctrl"):
        add_program(root, os.path.join(out, name), f"/cbd/{name}")
    for name, places in PROGRAMS.items():
        place = next((p for p in places if os.path.exists(p)), None)
        if place is None:
            raise Unavailable(f"{name} is not installed")
        add_program(root, place, f"/cbd/{name}")
    add_program(root, test_peer(), "/cbd/testpeer")
    os.symlink("mke2fs", os.path.join(root, "cbd", "mkfs.ext4"))
    initramfs = os.path.join(scratch, "initramfs")
    names = subprocess.run(["find", ".", "-print0"], cwd=root, capture_output=True, check=True).stdout
    with open(initramfs, "wb") as file:
        subprocess.run(["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"], cwd=root, input=names, stdout=file, check=True)
    shutil.rmtree(root)
    return boot_file(kernel, scratch), initramfs


def add_fio(booted, scratch):
    """The same with fio, whose libraries are larger than all the rest: an archive behind the other one."""
    if not os.path.exists("/usr/bin/fio"):
        raise Unavailable("fio is not installed")
    kernel, initramfs = booted
    root = os.path.join(scratch, "fio")
    add_program(root, "/usr/bin/fio", "/cbd/fio")
    target = os.path.join(scratch, "initramfs-fio")
    shutil.copy(initramfs, target)
    names = subprocess.run(["find", ".", "-print0"], cwd=root, capture_output=True, check=True).stdout
    with open(target, "ab") as file:
        # Archives begin at multiples of 4 bytes.
        file.write(bytes(-file.tell() % 4))
        file.flush()
        subprocess.run(["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"], cwd=root, input=names, stdout=file, check=True)
    shutil.rmtree(root)
    return kernel, target


if __name__ == "__main__":
    sys.exit("image.py is a part of tests/vm/run")
