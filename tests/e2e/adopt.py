"""Kills the process that serves a device by fuse, again and again, under a stamped load; each successor goes on with what was in flight.

adopt.py PEER KILLS [QUEUES]: this process keeps the descriptors, as a store does. Exits with an error if a request fails, if a block
reads as anything but what was acknowledged or was on its way, or if the node changes. Prints the pauses."""
import ctypes, mmap, os, random, select, signal, struct, subprocess, sys, threading, time

PEER, KILLS = sys.argv[1], int(sys.argv[2])
QUEUES = int(sys.argv[3]) if len(sys.argv) > 3 else 2
SIZE = 64 << 20
BLOCK = 4096
THREADS = 16
SYS_PIDFD_GETFD = 438
libc = ctypes.CDLL(None, use_errno=True)


def fail(text):
    print(f'FAIL: {text}', flush=True)
    os._exit(1)


def fetch(pid, number):
    """A duplicate of another process's descriptor, as SCM_RIGHTS gives."""
    process = os.pidfd_open(pid)
    try:
        own = libc.syscall(SYS_PIDFD_GETFD, process, number, 0)
        if own < 0:
            raise OSError(ctypes.get_errno(), 'pidfd_getfd')
        return own
    finally:
        os.close(process)


class Server:
    def __init__(self, disk, size, life, kept, *options):
        words = [PEER, 'life', str(disk), str(size), str(QUEUES), life, *[f'{name}={fd}' for name, fd in kept.items()], *options]
        for fd in [disk, *kept.values()]:
            os.set_inheritable(fd, True)
        self.process = subprocess.Popen(words, pass_fds=[disk, *kept.values()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.forgotten = False
        while True:
            line = self.process.stdout.readline().split()
            if not line:
                self.node = None
                return
            if line[0] == 'keep':
                kept[line[1]] = fetch(self.process.pid, int(line[2]))
            elif line[0] == 'confirm':
                self.process.stdin.write('\n')
                self.process.stdin.flush()
            else:
                self.node = ' '.join(line)
                return

    def ask(self, line):
        self.process.stdin.write(line + '\n')
        self.process.stdin.flush()
        while (answer := self.process.stdout.readline().rstrip('\n')).startswith('forget'):
            self.forgotten = True
        return answer

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


class Load(threading.Thread):
    """Owns a part of the disk: what it wrote and was acknowledged must be there."""
    def __init__(self, node, index):
        super().__init__(daemon=True)
        self.index, self.blocks = index, SIZE // BLOCK // THREADS
        self.first = index * self.blocks
        self.versions = [0] * self.blocks
        self.random = random.Random(index * 7919 + os.getpid())
        self.fd = os.open(node, os.O_RDWR | os.O_DIRECT)
        self.memory = mmap.mmap(-1, 1 << 20)
        self.count, self.slowest, self.stopped = 0, 0.0, False

    def stamp(self, block):
        return struct.pack('<QQ', self.first + block, self.versions[block]) * (BLOCK // 16)

    def check(self, block, data):
        wanted = bytes(BLOCK) if self.versions[block] == 0 else self.stamp(block)
        if data != wanted:
            got = struct.unpack('<QQ', data[:16])
            fail(f'block {self.first + block} has {got}, and version {self.versions[block]} was acknowledged')

    def run(self):
        try:
            while not self.stopped:
                count = self.random.choice([1, 1, 1, 1, 1, 1, 2, 4, 5, 16, 32, 64, 256])
                at = self.random.randrange(self.blocks - count)
                begun = time.monotonic()
                if self.random.random() < 0.6:
                    for block in range(at, at + count):
                        self.versions[block] += 1
                    self.memory[:count * BLOCK] = b''.join(self.stamp(block) for block in range(at, at + count))
                    done = os.pwritev(self.fd, [memoryview(self.memory)[:count * BLOCK]], (self.first + at) * BLOCK)
                    if self.random.random() < 0.05:
                        os.fsync(self.fd)
                else:
                    done = os.preadv(self.fd, [memoryview(self.memory)[:count * BLOCK]], (self.first + at) * BLOCK)
                    for block in range(count):
                        self.check(at + block, self.memory[block * BLOCK:(block + 1) * BLOCK])
                if done != count * BLOCK:
                    fail(f'{done} bytes of {count * BLOCK} were done')
                self.count += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
        except OSError as error:
            fail(f'a request failed: {error}')

    def verify(self):
        for block in range(self.blocks):
            os.preadv(self.fd, [memoryview(self.memory)[:BLOCK]], (self.first + block) * BLOCK)
            self.check(block, self.memory[:BLOCK])


def new_disk():
    disk = os.memfd_create('disk', os.MFD_ALLOW_SEALING)
    os.ftruncate(disk, 2 * SIZE)
    import fcntl
    fcntl.fcntl(disk, 1033, 1 | 2 | 4)
    return disk


def main():
    disk, life, kept = new_disk(), f'{random.getrandbits(63) | 1:016x}', {}
    server = Server(disk, SIZE, life, kept, 'slow')
    node = server.node
    if node is None or not node.startswith('/dev/loop'):
        fail(f'no device: {node}')
    loads = [Load(node, index) for index in range(THREADS)]
    for load in loads:
        load.start()
    pauses = []
    chance = random.Random()
    for number in range(KILLS):
        time.sleep(chance.uniform(0.0, 0.15))
        before = sum(load.count for load in loads)
        server.kill()
        begun = time.monotonic()
        server = Server(disk, SIZE, life, kept, 'slow' if number % 2 else 'fast')
        if server.node != node:
            fail(f'kill {number}: the node is {server.node}, and was {node}')
        while sum(load.count for load in loads) == before and time.monotonic() < begun + 30:
            time.sleep(0.001)
        pauses.append(time.monotonic() - begun)
    before = sum(load.count for load in loads)
    time.sleep(0.3)
    for load in loads:
        load.stopped = True
    for load in loads:
        load.join(60)
        if load.is_alive():
            fail('a request is never answered')
    total = sum(load.count for load in loads)
    for load in loads:
        load.verify()
        os.close(load.fd)
    answer = server.ask('stop')
    if answer != 'ok':
        fail(f'the stop says: {answer}')
    server.end()
    pauses.sort()
    print(f'{KILLS} kills, {QUEUES} queues, {total} requests, no error, no wrong block; pause median {pauses[len(pauses) // 2] * 1000:.0f} ms, '
          f'longest {pauses[-1] * 1000:.0f} ms; slowest request {max(load.slowest for load in loads) * 1000:.0f} ms')


if __name__ == '__main__':
    main()
