"""Kills a daemon again and again under load of an NBD device, starts it anew at once, and says how long requests waited.

pause.py URI KILLS CBDD OPTION...: the daemon is CBDD OPTION..., started and killed by this program; prints one JSON
object. Each kill's pause is the longest that a request took which was in flight when the daemon was killed, or came
later: from its submission, so the time before the kill counts too. No request may fail.
"""
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import nbd

THREADS = 4
BLOCK = 4096


class Client(threading.Thread):
    def __init__(self, uri, number):
        super().__init__(daemon=True)
        self.uri, self.number = uri, number
        self.done = []
        self.error = None
        self.stop = False

    def run(self):
        try:
            handle = nbd.NBD()
            handle.connect_uri(self.uri)
            blocks = handle.get_size() // BLOCK // THREADS
            wrote = {}
            chance = random.Random(self.number)
            while not self.stop:
                block = self.number * blocks + chance.randrange(blocks)
                start = time.monotonic()
                if block in wrote and chance.random() < 0.3:
                    if handle.pread(BLOCK, block * BLOCK) != wrote[block]:
                        raise ValueError(f"block {block} is not what was written")
                else:
                    data = chance.randbytes(16) * (BLOCK // 16)
                    handle.pwrite(data, block * BLOCK, 0)
                    wrote[block] = data
                self.done.append((start, time.monotonic()))
            for block, data in wrote.items():
                if handle.pread(BLOCK, block * BLOCK) != data:
                    raise ValueError(f"at the end block {block} is not what was written")
            handle.shutdown()
        except Exception as error:  # of whatever kind: the test fails with its text
            self.error = error


def main():
    uri, kills, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    daemon = subprocess.Popen(command)
    clients = [Client(uri, number) for number in range(THREADS)]
    try:
        for client in clients:
            client.start()
        pauses = []
        for _ in range(kills):
            limit = time.monotonic() + 60
            marks = [len(client.done) for client in clients]
            while not all(len(client.done) > mark + 20 for client, mark in zip(clients, marks)):
                failed(clients, limit)
                time.sleep(0.01)
            time.sleep(random.uniform(0.1, 0.4))
            killed = time.monotonic()
            daemon.send_signal(signal.SIGKILL)
            daemon.wait()
            daemon = subprocess.Popen(command)
            limit = time.monotonic() + 60
            while not all(client.done and client.done[-1][0] > killed for client in clients):
                failed(clients, limit)
                time.sleep(0.005)
            pauses.append(max(end - start for client in clients for start, end in client.done[-2000:] if end >= killed))
        for client in clients:
            client.stop = True
        for client in clients:
            client.join(60)
        failed(clients, time.monotonic() + 60)
        pauses.sort()
        print(json.dumps({
            "kills": kills,
            "median_ms": round(pauses[len(pauses) // 2] * 1000),
            "longest_ms": round(pauses[-1] * 1000),
            "requests": sum(len(client.done) for client in clients),
        }))
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


def failed(clients, limit):
    for client in clients:
        if client.error is not None:
            sys.exit(f"client {client.number}: {client.error}")
    if time.monotonic() > limit:
        sys.exit("the device does not go on")


main()
