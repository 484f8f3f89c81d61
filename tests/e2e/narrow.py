#!/usr/bin/env python3
"""Stands between NBD clients and a server and lets them agree on less than they could.

narrow.py simple|old SERVER LISTEN LOG

simple: structured replies and extended headers are answered as unsupported, as by an older server.
old: the greeting has no flags, so that the handshake is the one of 2011, with NBD_OPT_EXPORT_NAME and nothing else.

SERVER and LISTEN are unix:PATH or tcp:PORT (loopback). Behind the handshake every byte passes unchanged. LOG gets one
line for each option: its number and what became of it.
"""
import socket
import struct
import sys
import threading

IHAVEOPT, REPLY = 0x49484156454F5054, 0x3E889045565A9
EXPORT_NAME, ABORT, GO = 1, 2, 7
ACK, UNSUPPORTED = 1, 0x80000001
REFUSED = {"simple": {8, 11}, "old": set()}

way, server, listen, log_path = sys.argv[1:]
log = open(log_path, "a", buffering=1)


def address(text):
    kind, _, rest = text.partition(":")
    if kind == "unix":
        return socket.AF_UNIX, rest
    return socket.AF_INET, ("127.0.0.1", int(rest))


def take(s, count):
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def relay(source, target):
    try:
        while data := source.recv(1 << 18):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        source.close()
        target.close()


def handshake(client, upstream):
    greeting = take(upstream, 18)
    client.sendall(greeting[:16] + b"\0\0" if way == "old" else greeting)
    upstream.sendall(take(client, 4))
    while True:
        header = take(client, 16)
        magic, option, length = struct.unpack(">QII", header)
        assert magic == IHAVEOPT, hex(magic)
        data = take(client, length)
        if option in REFUSED[way]:
            log.write(f"{option} refused\n")
            client.sendall(struct.pack(">QIII", REPLY, option, UNSUPPORTED, 0))
            continue
        upstream.sendall(header + data)
        if option == EXPORT_NAME:
            log.write(f"{option} passed\n")
            return
        kind = 0
        while kind != ACK and kind < 1 << 31:
            header = take(upstream, 20)
            _, _, kind, length = struct.unpack(">QIII", header)
            client.sendall(header + take(upstream, length))
        log.write(f"{option} answered {kind:#x}\n")
        if option == GO and kind == ACK:
            return
        if option == ABORT:
            raise EOFError


def serve(client):
    family, place = address(server)
    upstream = socket.socket(family)
    try:
        upstream.connect(place)
        for s in (client, upstream):
            if s.family == socket.AF_INET:
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake(client, upstream)
    except (EOFError, OSError):
        client.close()
        upstream.close()
        return
    threading.Thread(target=relay, args=(upstream, client), daemon=True).start()
    relay(client, upstream)


family, place = address(listen)
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(place)
listener.listen(64)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
