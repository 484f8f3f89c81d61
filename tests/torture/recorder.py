"""A disk with a volatile cache, over NBD on a Unix socket, that records what it is told: every write with its data, every
flush, and when each came in and was answered. Requests are done in any order, as a disk does them.

`recorder.py SOCKET SIZE LOG` serves until it is killed. A record in the log: kind, when it came in, when it was answered
(0 for 'never', written after it), offset, length, then the data of a write.

The promise of this disk: a write is on the medium when a flush was answered that came in after the write's own answer.
What else was written may be on the medium or not, whole or in parts of 512 bytes, at any time after it came in.
"""

import os
import queue
import random
import socket
import struct
import sys
import threading
import time

RECORD = struct.Struct("<BxxxxxxxQQQQ")  # kind, came in, answered (ns of the monotonic clock), offset, length
WRITE, FLUSH = 1, 2
WORKERS = 4

READ_COMMAND, WRITE_COMMAND, DISCONNECT_COMMAND, FLUSH_COMMAND = 0, 1, 2, 3
HAS_FLAGS, SEND_FLUSH = 1, 4
REPLY_ACK, REPLY_INFO, REPLY_UNSUPPORTED = 1, 3, 0x80000001


class Recorder:
    """One client, a thread that takes requests in, and a few that do them."""

    def __init__(self, client, size, image, log):
        self.client, self.size, self.image, self.log = client, size, image, log
        self.sending, self.logging = threading.Lock(), threading.Lock()
        self.requests = queue.Queue(128)

    def receive(self, count):
        data = bytearray()
        while len(data) < count:
            more = self.client.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return bytes(data)

    def shake_hands(self):
        self.client.sendall(b"NBDMAGIC" + b"IHAVEOPT" + struct.pack(">H", 1))
        self.receive(4)
        while True:
            _, option, length = struct.unpack(">8sII", self.receive(16))
            self.receive(length)
            if option in (6, 7):  # INFO, GO
                self.answer(option, REPLY_INFO, struct.pack(">HQH", 0, self.size, HAS_FLAGS | SEND_FLUSH))
                self.answer(option, REPLY_ACK)
                if option == 7:
                    return
            elif option == 1:  # EXPORT_NAME
                self.client.sendall(struct.pack(">QH", self.size, HAS_FLAGS | SEND_FLUSH) + bytes(124))
                return
            else:
                self.answer(option, REPLY_UNSUPPORTED)

    def answer(self, option, reply, data=b""):
        self.client.sendall(struct.pack(">QIII", 0x3E889045565A9, option, reply, len(data)) + data)

    def serve(self):
        self.shake_hands()
        for _ in range(WORKERS):
            threading.Thread(target=self.work, daemon=True).start()
        while True:
            magic, _, command, handle, offset, length = struct.unpack(">IHHQQI", self.receive(28))
            if magic != 0x25609513 or command == DISCONNECT_COMMAND:
                return
            data = self.receive(length) if command == WRITE_COMMAND else b""
            came = time.monotonic_ns()
            # A write is in the log as soon as it came in: a cut may find it on the medium from now on.
            at = self.record(WRITE, came, offset, length, data) if command == WRITE_COMMAND else None
            self.requests.put((command, handle, offset, length, data, came, at))

    def record(self, kind, came, offset, length, data):
        with self.logging:
            at = self.log.seek(0, os.SEEK_END)
            self.log.write(RECORD.pack(kind, came, 0, offset, length) + data)
            self.log.flush()
            return at

    def work(self):
        while True:
            command, handle, offset, length, data, came, at = self.requests.get()
            reply = b""
            if command == READ_COMMAND:
                reply = os.pread(self.image, length, offset)
            elif command == WRITE_COMMAND:
                if random.random() < 0.2:
                    time.sleep(random.random() * 0.002)
                os.pwrite(self.image, data, offset)
            elif command == FLUSH_COMMAND:
                at = self.record(FLUSH, came, 0, 0, b"")
            with self.sending:
                if at is not None:
                    # Before it can be received: a flush that comes in later is later than this.
                    self.stamp(at)
                self.client.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + reply)

    def stamp(self, at):
        with self.logging:
            os.pwrite(self.log.fileno(), struct.pack("<Q", time.monotonic_ns()), at + 16)


def main(path, size, log_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    image = os.open(log_path + ".image", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(image, int(size))
    with open(log_path, "wb") as log:
        client, _ = listener.accept()
        try:
            Recorder(client, int(size), image, log).serve()
        except EOFError:
            pass


if __name__ == "__main__":
    main(*sys.argv[1:])
