"""A small client of NBD: a request that is not answered within a bound is an error of its own, and not a test that hangs."""

import os
import socket
import struct

READ, WRITE, FLUSH, DISCONNECT = 0, 1, 3, 2


class Refused(Exception):
    """The server answered with an error."""


class NbdClient:
    def __init__(self, path, limit_s):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(limit_s)
        self.cookie = 0
        try:
            self.socket.connect(path)
            if self.take(16) != b"NBDMAGICIHAVEOPT":
                raise OSError("no NBD server")
            self.take(2)
            # Fixed newstyle, no zeroes; then NBD_OPT_GO for the default export, without information.
            self.socket.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">IIIH", 7, 6, 0, 0))
            while True:
                _, _, kind, length = struct.unpack(">QIII", self.take(20))
                body = self.take(length)
                if kind == 1:
                    return
                if kind & 1 << 31:
                    raise Refused(f"the handshake: {body!r}")
                if struct.unpack(">H", body[:2])[0] == 0:
                    self.size = struct.unpack(">Q", body[2:10])[0]
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, DISCONNECT, 0, 0, 0))
        except OSError:
            pass
        self.socket.close()

    def read(self, offset, length):
        return self.request(READ, offset, length)

    def write(self, offset, data):
        self.request(WRITE, offset, len(data), data)

    def flush(self):
        self.request(FLUSH, 0, 0)

    def request(self, command, offset, length, data=b""):
        self.cookie += 1
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, self.cookie, offset, length) + data)
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        if magic != 0x67446698 or cookie != self.cookie:
            raise OSError("the server's answer is none")
        if error:
            raise Refused(os.strerror(error))
        return self.take(length) if command == READ else b""

    def take(self, length):
        parts = bytearray()
        while len(parts) < length:
            part = self.socket.recv(length - len(parts))
            if not part:
                raise OSError("the server disconnected")
            parts += part
        return bytes(parts)
