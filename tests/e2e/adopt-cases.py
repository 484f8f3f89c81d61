"""What a successor refuses, announces and ends; adopt-cases.py PEER. Prints one line for each case."""
import errno, fcntl, mmap, os, random, struct, sys, threading, time

sys.argv = [sys.argv[0], sys.argv[1], '0']
from adopt import BLOCK, PEER, SIZE, Load, Server, fail, new_disk

BLKGETSIZE64 = 0x80081272


def new_life():
    return f'{random.getrandbits(63) | 1:016x}'


def size_of(node):
    fd = os.open(node, os.O_RDONLY)
    try:
        return struct.unpack('Q', fcntl.ioctl(fd, BLKGETSIZE64, bytes(8)))[0]
    finally:
        os.close(fd)


def pages(count=1, byte=b'\x55'):
    memory = mmap.mmap(-1, count * BLOCK)
    memory[:] = byte * (count * BLOCK)
    return memory


class Request(threading.Thread):
    """One request with a result: 0 or an errno."""
    def __init__(self, node, offset, write=True):
        super().__init__(daemon=True)
        self.fd, self.offset, self.write, self.result = os.open(node, os.O_RDWR | os.O_DIRECT), offset, write, None
        self.start()

    def run(self):
        try:
            memory = pages()
            os.pwritev(self.fd, [memory], self.offset) if self.write else os.preadv(self.fd, [memory], self.offset)
            self.result = 0
        except OSError as error:
            self.result = error.errno
        os.close(self.fd)

    def expect(self, *results):
        self.join(30)
        if self.is_alive():
            fail('a request is never answered')
        if self.result not in results:
            fail(f'a request ended with {self.result}, and {results} are right')


def expect(answer, *words):
    for word in words:
        if word not in (answer or ''):
            fail(f"the answer is '{answer}', and '{word}' is expected")


def begin(*options, size=SIZE):
    disk, life, kept = new_disk(), new_life(), {}
    server = Server(disk, size, life, kept, *options)
    expect(server.node, '/dev/loop')
    return disk, life, kept, server


def close(disk, kept):
    for fd in [disk, *kept.values()]:
        os.close(fd)


def finish(server, disk, kept, how='stop'):
    expect(server.ask(how), 'ok')
    if not server.forgotten:
        fail('the store still keeps what is over')
    server.end()
    close(disk, kept)


def poison():
    disk, life, kept, server = begin('counts', f'poison={5 * BLOCK}')
    node, deaths = server.node, 0
    request = Request(node, 5 * BLOCK)
    while True:
        server.process.wait(30)
        deaths += 1
        server.kill()
        if deaths == 4:
            fail('a request ends a fourth process')
        server = Server(disk, SIZE, life, kept, 'counts', f'poison={5 * BLOCK}')
        request.join(2 if deaths == 3 else 0.5)
        if not request.is_alive():
            break
    if deaths != 3:
        fail(f'the request was answered after {deaths} deaths')
    request.expect(errno.EIO)
    Request(node, 6 * BLOCK).expect(0)
    finish(server, disk, kept)
    print('a request that ended three processes gets an error, and the device goes on')


def park():
    disk, life, kept, server = begin('slow')
    node = server.node
    loads = [Load(node, index) for index in range(8)]
    for load in loads:
        load.start()
    for number in range(4):
        time.sleep(0.2)
        expect(server.ask('park'), 'ok')
        server.end()
        server = Server(disk, SIZE, life, kept, 'slow' if number % 2 else 'fast')
        expect(server.node, node)
    for load in loads:
        load.stopped = True
        load.join(30)
        if load.is_alive():
            fail('a request is never answered after parking')
    for load in loads:
        load.verify()
        os.close(load.fd)
    finish(server, disk, kept)
    print('a parked device goes on')


def sizes():
    disk, life, kept, server = begin()
    node = server.node
    load = Load(node, 0)
    load.start()
    server.kill()
    server = Server(disk, SIZE // 2, life, kept)
    expect(server.node, 'error', f'it has {SIZE // 2} bytes now', 'does not shrink')
    server.end()
    server = Server(disk, SIZE + 4 * BLOCK, life, kept)
    expect(server.node, node)
    if size_of(node) != SIZE + 4 * BLOCK:
        fail(f'the node has {size_of(node)} bytes after a take-over with more')
    Request(node, SIZE + 3 * BLOCK).expect(0)
    expect(server.ask(f'resize {SIZE + (1 << 20)}'), 'ok')
    if size_of(node) != SIZE + (1 << 20):
        fail(f'the node has {size_of(node)} bytes after growth')
    Request(node, SIZE + (1 << 20) - BLOCK).expect(0)
    Request(node, SIZE + (1 << 20) - BLOCK, write=False).expect(0)
    load.stopped = True
    load.join(30)
    load.verify()
    os.close(load.fd)
    finish(server, disk, kept)
    print('a smaller device is refused, a larger one announced')


def damage():
    disk, life, kept, server = begin('slow')
    node = server.node
    load = Load(node, 0)
    load.start()
    time.sleep(0.2)
    server.kill()

    def refused(changed, *words):
        names = {name: fd for name, fd in changed.items()}
        refusing = Server(disk, SIZE, life, names)
        expect(refusing.node, 'error', *words)
        refusing.end()

    first, second = f'inflight-{life}-0', f'inflight-{life}-1'
    fuse = f'fuse-{life}-0'
    refused({**kept, first: kept[second], second: kept[first]}, 'is of queue 1 of 2')
    refused({name: fd for name, fd in kept.items() if name != second}, 'was kept, and a channel and a record')
    null = os.open('/dev/null', os.O_RDWR)
    refused({**kept, first: null}, f"'{first}' is no sealed memory")
    refused({**kept, fuse: null}, f"'{fuse}' is /dev/null")
    refused({**kept, fuse: kept[first]}, f"'{fuse}' is ")
    os.close(null)
    for offset, byte, words in [(8, b'\x09', 'version is 9'), (20, b'\xff', 'checksum of its header'), (4096 + 3 * 192, b'\x44', 'the state in slot 3')]:
        before = os.pread(kept[first], 1, offset)
        os.pwrite(kept[first], byte, offset)
        refused(kept, first, 'damaged', words)
        os.pwrite(kept[first], before, offset)
    # Nothing was changed meanwhile.
    server = Server(disk, SIZE, life, kept)
    expect(server.node, node)
    load.stopped = True
    load.join(30)
    if load.is_alive():
        fail('a request is never answered after refusals')
    load.verify()
    os.close(load.fd)
    finish(server, disk, kept)
    print('what does not fit is refused by name, and changes nothing')


def abandon():
    disk, life, kept, server = begin('slow', 'poison=0')
    node = server.node
    request = Request(node, 0)
    server.process.wait(30)
    server.kill()
    first = f'inflight-{life}-0'
    os.pwrite(kept[first], b'\x44', 4096 + 3 * 192)
    server = Server(disk, SIZE, life, kept)
    expect(server.node, 'damaged')
    if request.result is not None:
        fail('a request was answered although its device was not gone on with')
    expect(server.ask('abandon'), 'ok')
    request.expect(errno.EIO)
    server.end()
    # Its loop device is a leftover of this host.
    other, other_life, other_kept, server = begin()
    path = f'/sys/block/{os.path.basename(node)}/loop/backing_file'
    if os.path.exists(path) and life in open(path).read():
        fail(f'{node} is left')
    finish(server, other, other_kept)
    close(disk, kept)
    print('what is abandoned gets errors and leaves nothing')


def force():
    disk, life, kept, server = begin('slow')
    node = server.node
    fd = os.open(node, os.O_RDWR | os.O_DIRECT)
    begun = time.monotonic()
    expect(server.ask('force'), 'ok')
    try:
        os.preadv(fd, [pages()], 0)
        fail('a device that was ended by force is read')
    except OSError:
        pass
    os.close(fd)
    if time.monotonic() - begun > 20:
        fail('the end by force takes its time')
    server.end()
    close(disk, kept)
    print('an end by force ends what duplicates of its channels are open to')


for case in [poison, park, sizes, damage, abandon, force]:
    case()
