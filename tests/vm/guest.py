"""One virtual machine: a QEMU process, and a shell in it that is driven through a virtio port."""

import base64
import os
import signal
import socket
import subprocess
import time


class Failed(Exception):
    """A test failed; the text says what was expected of whom."""


class Result:
    def __init__(self, status, stdout, stderr):
        self.status, self.stdout, self.stderr = status, stdout, stderr


def cpu_s_of(pid):
    """utime and stime of a process, in seconds; none of one that is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Guest:
    """start() boots it; sh() runs a script there; kill() ends it."""

    def __init__(self, name, logs, directory, image, accelerator, devices, memory="384M", cpus=2):
        self.name = name
        self.log = os.path.join(logs, f"{name}.console")
        self._directory = directory
        self._image = image
        self._accelerator = accelerator
        self._devices = devices
        self._memory = memory
        self._cpus = cpus
        self._process = None
        self._port = None
        self._lines = None
        self._requests = 0
        self._life = 0
        self._interrupted = False
        self._spent_s = 0.0

    def start(self):
        """Starts to boot; ready() waits for the end of it."""
        self._life += 1
        path = os.path.join(self._directory, f"{self.name}.{self._life}.port")
        kernel, initramfs = self._image
        command = [
            # However the tests end, a guest does not outlive the thread that started it.
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
            # Without a bound TCG takes as much memory for translated code as for the guest.
            "-machine", "q35,nvdimm=on", "-accel", "tcg,tb-size=256" if self._accelerator == "tcg" else self._accelerator, "-cpu", "max", "-smp", f"{self._cpus}", "-m", f"{self._memory},slots=2,maxmem=2G",
            "-kernel", kernel, "-initrd", initramfs,
            "-append", "console=ttyS0 loglevel=4 panic=-1 mitigations=off random.trust_cpu=on rdinit=/init",
            "-chardev", f"file,id=console,path={self.log},append=on", "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,path={path},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=cbd.agent",
            "-device", "virtio-rng-pci",
        ]
        with open(self.log, "a") as log:
            log.write(f"--- {self.name}, life {self._life}\n")
            log.flush()
            self._process = subprocess.Popen(command + self._devices, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self._socket_path = path

    def ready(self, limit=90):
        """
        Waits until it has booted. An emulated kernel sometimes dies meanwhile, when one CPU runs code that the other just
        patches; it has stored nothing anywhere by then, and is started again.
        """
        for again in (True, True, False):
            try:
                self._await_agent(limit)
                return
            except Failed as e:
                if self._interrupted or not again or self._accelerator != "tcg":
                    raise
                print(f"vm: {e}: booted again", flush=True)
                self.kill()
                self.start()

    def _await_agent(self, limit):
        deadline = time.monotonic() + limit
        while self._port is None:
            self._check_runs()
            port = socket.socket(socket.AF_UNIX)
            try:
                port.connect(self._socket_path)
                self._port = port
            except OSError:
                port.close()
                if time.monotonic() > deadline:
                    raise Failed(f"{self.name}: QEMU does not open its port")
                time.sleep(0.05)
        self._lines = b""
        if self._line(deadline) != b"ready":
            raise Failed(f"{self.name}: the first line is not 'ready'")

    def run(self, script, limit=60):
        """Runs a script of busybox's shell; fails only if there is no answer in time."""
        self._requests += 1
        request = f"{self._requests} {base64.b64encode(script.encode()).decode()}\n".encode()
        deadline = time.monotonic() + limit
        try:
            self._port.settimeout(limit)
            self._port.sendall(request)
        except OSError as e:
            raise Failed(f"{self.name}: its port failed: {e}") from None
        words = self._line(deadline, script).split(b" ")
        if len(words) != 4 or words[0] != str(self._requests).encode():
            raise Failed(f"{self.name}: answer {words[:2]} to request {self._requests}")
        return Result(int(words[1]), *(base64.b64decode(w[1:]).decode(errors="replace") for w in words[2:]))

    def sh(self, script, limit=60):
        """As run(), but fails unless the script succeeds; returns what it printed, without the last newline."""
        result = self.run("set -e\n" + script, limit)
        if result.status != 0:
            raise Failed(f"{self.name}: exit code {result.status} of:\n{script.strip()}\n{result.stdout[-800:]}{result.stderr[-800:]}")
        return result.stdout.rstrip("\n")

    def wait_until(self, what, script, limit=60):
        """Repeats a script until it succeeds."""
        deadline = time.monotonic() + limit
        while self.run(script, limit).status != 0:
            if time.monotonic() > deadline:
                last = self.run(script, limit)
                raise Failed(f"{self.name}: {what} did not happen within {limit} s: {last.stdout}{last.stderr}")
            # To start the program costs an emulated CPU most of a second, which the others want.
            time.sleep(1 if "cbdctrl" in script else 0.2)

    def interrupt(self):
        """Ends QEMU from another thread, for good; what its own does with the guest fails then."""
        self._interrupted = True
        self._end()

    def _end(self):
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL)

    def freeze(self):
        """All its virtual CPUs stand still, as when a hypervisor pauses or migrates it."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def cpu_s(self):
        """Seconds of CPU that its QEMU processes have used so far, in all its lives."""
        return self._spent_s + (cpu_s_of(self._process.pid) if self._process is not None else 0.0)

    def kill(self):
        """Ends QEMU at once, as a power cut does."""
        if self._process is not None:
            self._spent_s = self.cpu_s()
            self._end()
            self._process.wait()
            self._process = None
            if os.path.exists(self._socket_path):
                os.unlink(self._socket_path)
        if self._port is not None:
            self._port.close()
            self._port = None

    def _check_runs(self):
        if self._process is None or self._process.poll() is not None:
            status = None if self._process is None else self._process.returncode
            raise Failed(f"{self.name}: QEMU ended with {status}: see {os.path.basename(self.log)}")

    def _line(self, deadline, script=""):
        while b"\n" not in self._lines:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(f"{self.name}: no answer in time{' to: ' + script.strip() if script else ', it did not boot'}")
            self._port.settimeout(left)
            try:
                got = self._port.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError as e:
                raise Failed(f"{self.name}: its port failed: {e}") from None
            if not got:
                self._check_runs()
                raise Failed(f"{self.name}: its port was closed")
            self._lines += got
        line, self._lines = self._lines.split(b"\n", 1)
        return line.rstrip(b"\r")
