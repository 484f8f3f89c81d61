"""Stamped blocks: a load that stamps every block {lba, writer, sequence, crc}, and what judges it.

A writer has a file of its own and one I/O at a time, so that it knows for each block what a read may give: the sequence
that was acknowledged last, or, after an error, anything from that to the last that was submitted. What it knows stands in
a ledger, a file that outlives the writer: after a crash of anything below, each block must hold a stamp from the last
flushed sequence to the last submitted one.

`stamps.py LEDGER` is the load: a process per writer, until the ledger says stop.
"""

import contextlib
import errno
import mmap
import multiprocessing
import os
import random
import signal
import struct
import sys
import time
import zlib

BLOCK = 4096
MAGIC = 0x4D41545344424331
STAMP = struct.Struct("<QQQQ")  # magic, lba, writer, sequence; the block's last four bytes are the CRC of the rest

# Words of the ledger: a header, then for each writer its own words and three per block.
STOP, CYCLE, WRITERS, BLOCKS, SEED = range(5)
HEADER_WORDS = 16
OPS, READS, FLUSHES, ERRORS, WRONG, LONGEST, LONGEST_CYCLE, ERRNO, WRONG_BLOCK, WRONG_FOUND, ENDED, SEQUENCE = range(12)
WRITER_WORDS = 16


def stamp(lba, writer, sequence):
    head = STAMP.pack(MAGIC, lba, writer, sequence)
    body = head * (BLOCK // len(head) - 1) + head[:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def read_stamp(block, lba, writer):
    """The sequence of a block, or -1 if it is not a whole stamp of that block."""
    magic, its_lba, its_writer, sequence = STAMP.unpack_from(block)
    if magic != MAGIC or its_lba != lba or its_writer != writer:
        return -1
    return sequence if zlib.crc32(block[:-4]) == struct.unpack_from("<I", block, BLOCK - 4)[0] else -1


class Ledger:
    """What was submitted, acknowledged and flushed; shared by the load and its judge."""

    def __init__(self, path, writers=0, blocks=0, seed=0):
        if writers:
            with open(path, "wb") as file:
                file.truncate(8 * (HEADER_WORDS + writers * (WRITER_WORDS + 3 * blocks)))
        with open(path, "r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        if writers:
            self.words[WRITERS], self.words[BLOCKS], self.words[SEED] = writers, blocks, seed
        self.path, self.writers, self.blocks = path, self.words[WRITERS], self.words[BLOCKS]

    def writer(self, index):
        """(own words, submitted, acknowledged, flushed) of a writer."""
        at = HEADER_WORDS + index * (WRITER_WORDS + 3 * self.blocks)
        own = self.words[at:at + WRITER_WORDS]
        at += WRITER_WORDS
        return (own, *(self.words[at + part * self.blocks:at + (part + 1) * self.blocks] for part in range(3)))

    def total(self, word):
        return sum(self.writer(index)[0][word] for index in range(self.writers))

    def progress(self):
        return [self.writer(index)[0][OPS] for index in range(self.writers)]

    def longest(self):
        """The longest that any I/O of the current cycle took, in seconds."""
        own = (self.writer(index)[0] for index in range(self.writers))
        return max((words[LONGEST] for words in own if words[LONGEST_CYCLE] == self.words[CYCLE]), default=0) / 1e9

    def complaint(self):
        """What a writer found wrong, or an error that it got; None if there is nothing."""
        for index in range(self.writers):
            own = self.writer(index)[0]
            if own[WRONG]:
                return f"writer {index}, block {own[WRONG_BLOCK]}: sequence {own[WRONG_FOUND]} was read, which is not what was written"
            if own[ERRORS]:
                return f"writer {index} got {errno.errorcode.get(own[ERRNO], own[ERRNO])} ({own[ERRORS]} errors)"
        return None


def file_of(directory, index):
    return os.path.join(directory, f"stamps.{index}")


def prepare(ledger, directory):
    """Makes the writers' files, whole and flushed, with sequence 1 in every block."""
    for index in range(ledger.writers):
        _, submitted, acknowledged, flushed = ledger.writer(index)
        # Not truncated: it may be a file of fixed size.
        with open(os.open(file_of(directory, index), os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            for lba in range(ledger.blocks):
                file.write(stamp(lba, index, 1))
                submitted[lba] = acknowledged[lba] = flushed[lba] = 1
            file.flush()
            os.fsync(file.fileno())
        ledger.writer(index)[0][SEQUENCE] = 1
    directory = os.open(directory, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def judge(ledger, directory, exact=False):
    """Reads every block. After a crash: from the last flushed sequence to the last submitted; exact: what was
    acknowledged. Returns what is wrong, one line each."""
    wrong = []
    for index in range(ledger.writers):
        own, submitted, acknowledged, flushed = ledger.writer(index)
        try:
            with open(file_of(directory, index), "rb") as file:
                for lba in range(ledger.blocks):
                    block = file.read(BLOCK)
                    found = read_stamp(block, lba, index) if len(block) == BLOCK else -2
                    low = acknowledged[lba] if exact else flushed[lba]
                    if not low <= found <= submitted[lba]:
                        what = {-1: "no stamp of it", -2: "the file ends there"}.get(found, f"sequence {found}")
                        wrong.append(f"writer {index}, block {lba}: {what}; flushed {flushed[lba]}, acknowledged {acknowledged[lba]}, submitted {submitted[lba]}")
                    elif not exact:
                        # What is there now is what the next life of the load starts from.
                        submitted[lba] = acknowledged[lba] = flushed[lba] = found
        except OSError as error:
            wrong.append(f"writer {index}: {error}")
        own[ERRORS] = own[ENDED] = 0
    return wrong


def write_until_stopped(ledger_path, directory, index, patient):
    """One writer: random runs of 1 to 16 blocks, a flush now and then, and reads that check. The writers differ: direct,
    buffered, and direct with every write flushed. Ends at the first error unless it is patient."""
    ledger = Ledger(ledger_path)
    own, submitted, acknowledged, flushed = ledger.writer(index)
    choose = random.Random(f"{ledger.words[SEED]}/{index}/{own[SEQUENCE]}")
    flags = (os.O_DIRECT, os.O_DIRECT | os.O_DSYNC, 0, os.O_DIRECT)[index % 4]
    buffer = mmap.mmap(-1, 16 * BLOCK)
    view = memoryview(buffer)
    dirty = set()

    def timed(action, *words):
        start = time.monotonic_ns()
        try:
            return action(*words)
        finally:
            took = time.monotonic_ns() - start
            cycle = ledger.words[CYCLE]
            if own[LONGEST_CYCLE] != cycle:
                own[LONGEST], own[LONGEST_CYCLE] = 0, cycle
            if took > own[LONGEST]:
                own[LONGEST] = took
            own[OPS] += 1

    def flush(fd):
        covered = list(dirty)
        timed(os.fdatasync, fd)
        own[FLUSHES] += 1
        for lba in covered:
            flushed[lba] = acknowledged[lba]
        dirty.clear()

    def write(fd, lba, count):
        sequence = own[SEQUENCE] + 1
        own[SEQUENCE] = sequence
        for at in range(count):
            view[at * BLOCK:(at + 1) * BLOCK] = stamp(lba + at, index, sequence)
            submitted[lba + at] = sequence
        dirty.update(range(lba, lba + count))
        done = timed(os.pwrite, fd, view[:count * BLOCK], lba * BLOCK)
        if done != count * BLOCK:
            raise OSError(errno.EIO, "a short write")
        for at in range(lba, lba + count):
            acknowledged[at] = sequence
        if flags & os.O_DSYNC:
            for at in range(lba, lba + count):
                flushed[at] = sequence
            dirty.difference_update(range(lba, lba + count))

    def read(fd, lba, count):
        # A buffered read that meets an error on its way is short.
        done = timed(os.preadv, fd, [view[:count * BLOCK]], lba * BLOCK)
        if done != count * BLOCK:
            raise OSError(errno.EIO, "a short read")
        own[READS] += count
        for at in range(count):
            found = read_stamp(view[at * BLOCK:(at + 1) * BLOCK], lba + at, index)
            if not acknowledged[lba + at] <= found <= submitted[lba + at]:
                own[WRONG_BLOCK], own[WRONG_FOUND] = lba + at, found & (1 << 64) - 1
                own[WRONG] += 1

    while not ledger.words[STOP]:
        try:
            fd = os.open(file_of(directory, index), os.O_RDWR | flags)
            try:
                while not ledger.words[STOP]:
                    count = choose.choice((1, 1, 1, 2, 4, 16))
                    lba = choose.randrange(ledger.blocks - count + 1)
                    kind = choose.random()
                    if kind < 0.55:
                        write(fd, lba, count)
                    elif kind < 0.93:
                        read(fd, lba, count)
                    else:
                        flush(fd)
                flush(fd)
            finally:
                os.close(fd)
        except OSError as error:
            own[ERRNO] = error.errno
            own[ERRORS] += 1
            if not patient:
                break
            time.sleep(0.02)
    own[ENDED] = 1


class Load:
    """The load as a process of its own."""

    def __init__(self, world, ledger, directory, patient=False):
        ledger.words[STOP] = 0
        self.ledger = ledger
        words = [sys.executable, os.path.abspath(__file__), ledger.path, directory]
        self.process = world.spawn(*words, *(["patient"] if patient else []))

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def stop(self):
        self.ledger.words[STOP] = 1
        self.process.wait(120)


def main(ledger_path, directory, *options):
    ledger = Ledger(ledger_path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_until_stopped, args=(ledger_path, directory, index, "patient" in options), daemon=True)
               for index in range(ledger.writers)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
