"""Three hosts with twelve devices across each other, killed and started again in every order: each time every device that
may run does so under its name on its disk, without a further command, and `cbdctrl wait --all` answers exactly then."""

import itertools
import os
import random
import time
import uuid

from hosts import World, Wrong, command

HOSTS = "abc"
DISKS = 4
DISK_BYTES = 1 << 20
LIMIT_S = "120"


class Device:
    """A device of one host on a disk of another: which byte its disk is full of, and how it is used."""

    def __init__(self, world, host, disk, number):
        self.host, self.disk, self.letter = host, disk, bytes([ord("A") + number])
        self.name = f"{host}-{disk}"
        self.attach = "fuse" if disk.endswith("0") and host == HOSTS[(HOSTS.index(disk[0]) + 1) % 3] else "none"
        self.address = f"/dev/cbd/{self.name}" if self.attach == "fuse" else f"nbd+unix:///?socket={world.path(host)}/run/{self.name}.nbd"

    def read(self, world):
        if self.attach == "fuse":
            with open(self.address, "rb") as node:
                return node.read(DISK_BYTES)
        back = world.path("back")
        command("nbdcopy", self.address, back)
        with open(back, "rb") as file:
            return file.read()


def plan(world):
    """The devices: each disk has one, on another host than its own."""
    devices = []
    for number, (owner, disk) in enumerate(itertools.product(HOSTS, range(DISKS))):
        user = HOSTS[(HOSTS.index(owner) + 1 + disk % 2) % 3]
        devices.append(Device(world, user, f"{owner}{disk}", number))
    return devices


def fill(path, letter):
    with open(path, "wb") as file:
        file.write(letter * DISK_BYTES)


def check(world, hosts, devices, away=()):
    """Every device but those away is there, under its name, on its disk."""
    for name, host in hosts.items():
        seen = {device["name"]: device["dev_name"] for device in host.list("dev-list") if device["state"] == "running"}
        wanted = {device.name: device.address for device in devices if device.host == name and device.name not in away}
        if seen != wanted:
            raise Wrong(f"host {name} has the devices {seen} and not {wanted}; log: {host.log_end()}")
    for device in devices:
        if device.name in away:
            continue
        if device.read(world) != device.letter * DISK_BYTES:
            raise Wrong(f"device {device.name} leads to another disk")


def wait(host, *words):
    status, out, err = host.try_ctl("wait", "--all", "--timeout", *words)
    if status != 0:
        raise Wrong(f"host {host.name}: not all that is wanted came back: {out} {err}; log: {host.log_end()}")


def launch_all(hosts, order, choose, boot, with_kills):
    for name in order:
        hosts[name].launch(boot=boot)
        if with_kills and choose.random() < 0.5:
            # It dies anywhere in its start, and is started again.
            time.sleep(choose.uniform(0.0, 0.6))
            hosts[name].kill()
            hosts[name].launch(boot=boot)
        time.sleep(choose.choice((0.0, 0.07, 0.4)))


def kill_all(hosts, order):
    for name in order:
        hosts[name].must_live()
        hosts[name].process.kill()
    for name in order:
        hosts[name].process.wait()


def new_boot(world):
    path = world.path(f"boot-{uuid.uuid4()}")
    with open(path, "w") as file:
        file.write(f"{uuid.uuid4()}\n")
    return path


def lose_a_disk(world, hosts, devices, order, choose, boot):
    """A disk is missing, returns, then returns as another file, then as itself."""
    device = choose.choice(devices)
    path = world.path(device.disk)
    os.rename(path, path + ".away")
    launch_all(hosts, order, choose, boot, with_kills=False)
    for host in hosts.values():
        host.ready()
    for name, host in hosts.items():
        concerned = name in (device.host, device.disk[0])
        limit = time.monotonic() + 120
        while True:
            status, out, _ = host.try_ctl("wait", "--all", "--timeout", "0" if concerned else LIMIT_S)
            away = sorted(line.split(": waiting")[0] for line in out.splitlines())
            wanted = sorted(([f"device {device.name}"] if name == device.host else []) + ([f"backend {path}"] if name == device.disk[0] else []))
            if (status, away) == (9 if concerned else 0, wanted):
                break
            if time.monotonic() > limit:
                raise Wrong(f"host {name}: without {path} wait ends with {status} and {away}, not with {wanted}: {out}")
            time.sleep(0.1)
    check(world, hosts, devices, away=(device.name,))
    os.rename(path + ".away", path)
    for host in hosts.values():
        host.ready()
        wait(host, LIMIT_S)
    check(world, hosts, devices)
    kill_all(hosts, order)
    # Another file with another content is in its place.
    os.rename(path, path + ".away")
    fill(path, b"?")
    launch_all(hosts, order, choose, boot, with_kills=False)
    owner = hosts[device.disk[0]]
    owner.ready()
    limit = time.monotonic() + 120
    while "another disk" not in (seen := owner.try_ctl("wait", "--all", "--timeout", "0")[1]):
        if time.monotonic() > limit:
            raise Wrong(f"host {owner.name} does not say that {path} is another disk: {seen}")
        time.sleep(0.1)
    os.rename(path + ".away", path)
    for host in hosts.values():
        host.ready()
        wait(host, LIMIT_S)
    check(world, hosts, devices)


def run(progress, seed, cycles, say):
    choose = random.Random(seed)
    with World("boots") as world:
        hosts = {name: world.host(name) for name in HOSTS}
        devices = plan(world)
        for name, host in hosts.items():
            geometry = ("--format-if-empty", "--size", "128M", "--channels", "24") if name == HOSTS[0] else ()
            host.ctl("tp-reg", "-H", name, "-p", world.region, *geometry)
        backends = {}
        for device in devices:
            fill(world.path(device.disk), device.letter)
            backends[device.disk] = hosts[device.disk[0]].ctl("backend-start", "-p", world.path(device.disk))
        for device in devices:
            hosts[device.host].ctl("dev-start", "-b", backends[device.disk], "--name", device.name, "--attach", device.attach, "--queues", "1")
        check(world, hosts, devices)
        orders = list(itertools.permutations(HOSTS))
        choose.shuffle(orders)
        boot = None
        for cycle in range(cycles):
            order = orders[cycle] if cycle < len(orders) else choose.sample(HOSTS, len(HOSTS))
            kill_all(hosts, order)
            kind = "disk" if cycle % 5 == 3 else "reboot" if cycle % 5 == 1 else "kills"
            if kind == "reboot":
                # The region was in memory, and the system has another boot id.
                os.unlink(world.region)
                boot = new_boot(world)
            if kind == "disk":
                lose_a_disk(world, hosts, devices, order, choose, boot)
            else:
                launch_all(hosts, order, choose, boot, with_kills=cycle >= len(orders) or kind == "kills")
                for host in hosts.values():
                    host.ready()
                    wait(host, LIMIT_S)
                check(world, hosts, devices)
            progress.count(boots=1, **{f"boots_with_{kind}": 1})
            progress.save()
        say(f"{cycles} boots")
        for device in devices:
            hosts[device.host].ctl("dev-stop", "-d", device.name)
        for host in hosts.values():
            host.stop()
