"""bad_clients.py SOCKET COUNT: that many clients of an NBD export that all misbehave, each in its way, until stdin ends.

A client that the server drops comes back. Prints 'ready' when all have done their first harm, and at the end one line of JSON:
{kind: [times connected, clients connected now]}.
"""

import itertools
import json
import os
import random
import select
import socket
import struct
import sys
import threading
import time

IHAVEOPT, OPTION_REPLY, REQUEST = 0x49484156454F5054, 0x3E889045565A9, 0x25609513
ACK, INFO, STARTTLS, GO, LIST, UNKNOWN = 1, 3, 5, 7, 3, 0x7FFF
READ, WRITE = 0, 1
MIB = 1 << 20


class Client:
    """A connection, byte by byte."""

    def __init__(self, path, timeout=60):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        self.socket.connect(path)

    def send(self, data):
        self.socket.sendall(data)

    def take(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError("the server closed the connection")
            data += part
        return bytes(data)

    def hello(self):
        self.take(18)
        self.send(struct.pack(">I", 3))
        return self

    def option(self, number, data=b""):
        self.send(struct.pack(">QII", IHAVEOPT, number, len(data)) + data)

    def answer(self):
        magic, _, kind, length = struct.unpack(">QIII", self.take(20))
        assert magic == OPTION_REPLY
        self.take(length)
        return kind

    def go(self):
        self.hello().option(GO, struct.pack(">IH", 0, 0))
        while (kind := self.answer()) != ACK:
            assert kind == INFO, hex(kind)
        return self

    def request(self, kind, handle, offset, length):
        self.send(struct.pack(">IHHQQI", REQUEST, 0, kind, handle, offset, length))

    def read(self, offset, length):
        """Waits for the bytes."""
        self.request(READ, 1, offset, length)
        magic, error, handle = struct.unpack(">IIQ", self.take(16))
        assert (magic, error, handle) == (0x67446698, 0, 1), (hex(magic), error, handle)
        return self.take(length)

    def write(self, offset, data):
        self.request(WRITE, 1, offset, len(data))
        self.send(data)
        assert struct.unpack(">IIQ", self.take(16))[1:] == (0, 1)

    def close(self):
        self.socket.close()


def until_dropped(client, drip=None, every=3):
    """Sends nothing, or a byte every few seconds, and reads nothing, until the server has had enough."""
    poll = select.poll()
    poll.register(client.socket, select.POLLRDHUP)
    while not poll.poll(every * 1000):
        if drip:
            client.send(drip)


def pipeline(client, length, count):
    """Asks for much, without reading any of it."""
    client.socket.settimeout(0.2)
    try:
        for handle in range(count):
            client.request(READ, handle, 0, length)
    except TimeoutError:
        pass  # the server takes no more; a part of a request is sent, and it waits for the rest


def silent(path):
    yield (client := Client(path))
    until_dropped(client)


def silent_behind_flags(path):
    yield (client := Client(path).hello())
    until_dropped(client)


def silent_in_tls(path):
    yield (client := Client(path).hello())
    client.option(STARTTLS)
    client.answer()
    until_dropped(client)


def garbage_in_tls(path):
    yield (client := Client(path).hello())
    client.option(STARTTLS)
    client.answer()
    client.send(random.randbytes(4096))
    until_dropped(client)


def trickling_option(path):
    yield (client := Client(path).hello())
    client.send(struct.pack(">QII", IHAVEOPT, UNKNOWN, 4096))
    until_dropped(client, b"x", every=1)


def trickling_write(path):
    """The memory of a long write for a byte every three seconds."""
    yield (client := Client(path).go())
    client.request(WRITE, 1, 0, 32 * MIB)
    until_dropped(client, b"x")


def stopping_write(path):
    """The same, for one that sends more at first."""
    yield (client := Client(path).go())
    client.request(WRITE, 1, 0, random.choice((MIB, 2 * MIB, 32 * MIB)))
    client.send(bytes(100_000))
    until_dropped(client, b"x", every=1)


def garbage(path):
    yield (client := Client(path))
    client.send(random.randbytes(65536))
    until_dropped(client)


def garbage_requests(path):
    yield (client := Client(path).go())
    client.send(random.randbytes(65536))
    until_dropped(client)


def option_flood(path):
    """As many options as the server takes, without reading an answer."""
    yield (client := Client(path).hello())
    many = struct.pack(">QII", IHAVEOPT, UNKNOWN, 0) * 4096
    while True:
        client.send(many)


def option_flood_with_answers(path):
    yield (client := Client(path).hello())
    many = struct.pack(">QII", IHAVEOPT, LIST, 0) * 64
    while True:
        client.send(many)
        client.socket.recv(65536)


def half_closed(path):
    yield (client := Client(path).go())
    pipeline(client, 256 << 10, 64)
    client.socket.shutdown(socket.SHUT_WR)
    until_dropped(client)


def never_reading(length, count):
    def behave(path):
        yield (client := Client(path).go())
        pipeline(client, length, count)
        until_dropped(client)
    behave.__name__ = f"never_reading_{length >> 10}_KiB"
    return behave


KINDS = [silent, silent_behind_flags, silent_in_tls, garbage_in_tls, trickling_option, trickling_write, stopping_write, garbage,
         garbage_requests, option_flood, option_flood_with_answers, half_closed, never_reading(4096, 200), never_reading(MIB, 100),
         never_reading(32 * MIB, 4)]


class Crowd:
    def __init__(self, path, count):
        self.path, self.counts, self.lock = path, {kind.__name__: [0, 0] for kind in KINDS}, threading.Lock()
        self.begun = threading.Semaphore(0)
        self.threads = [threading.Thread(target=self.run, args=(kind,), daemon=True)
                        for kind in itertools.islice(itertools.cycle(KINDS), count)]
        for thread in self.threads:
            thread.start()
        for _ in self.threads:
            self.begun.acquire()

    def run(self, kind):
        first = True
        while True:
            behaviour, client = kind(self.path), None
            try:
                client = next(behaviour)
                self.count(kind, 1, 1)
                if first:
                    self.begun.release()
                    first = False
                next(behaviour, None)
            except (OSError, EOFError):
                pass  # dropped: that is what it is for
            if client:
                self.count(kind, 0, -1)
                client.close()
            time.sleep(0.2)

    def count(self, kind, connected, now):
        with self.lock:
            counts = self.counts[kind.__name__]
            counts[0] += connected
            counts[1] += now


def main():
    crowd = Crowd(sys.argv[1], int(sys.argv[2]))
    time.sleep(1)  # the first harm is done behind the first connection
    print("ready", flush=True)
    sys.stdin.read()
    with crowd.lock:
        print(json.dumps(crowd.counts), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
