"""A load that notes what it was promised and when: fsync that returned, transactions that were committed. Then a judge who
holds a file system to what was promised up to a moment.

`promises.py DIRECTORY NOTES SECONDS SEED` is the load; a note is a line of JSON [writer, when, what...], with the time of
the monotonic clock at which the promise was complete.
"""

import json
import os
import random
import sqlite3
import sys
import threading
import time

from stamps import BLOCK, read_stamp, stamp

STAMPED_BLOCKS = 512
FILES = "files"
# Not DELETE, SQLite's default: there a transaction ends with the removal of a file, which synchronous=FULL does not sync
# (EXTRA does). power-cuts-bare shows it without CBD.
DATABASES = {"wal": "WAL", "truncate": "TRUNCATE"}


class Notes:
    def __init__(self, path):
        self.lock, self.file = threading.Lock(), open(path, "w", encoding="utf-8")

    def add(self, writer, *what):
        line = json.dumps([writer, time.monotonic_ns(), *what])
        with self.lock:
            self.file.write(line + "\n")


def sync_directory(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def stamp_in_place(directory, notes, choose, going):
    """Blocks of one file, rewritten; a promise names all that changed since the last one."""
    fd = os.open(os.path.join(directory, "stamped"), os.O_RDWR)
    sequence, changed = 1, {}
    while going():
        for _ in range(choose.randrange(1, 12)):
            lba, sequence = choose.randrange(STAMPED_BLOCKS), sequence + 1
            changed[lba] = sequence
            notes.add("begun", lba, sequence)
            os.pwrite(fd, stamp(lba, 0, sequence), lba * BLOCK)
        os.fdatasync(fd)
        notes.add("stamped", changed)
        changed = {}
    os.close(fd)


def make_files(directory, notes, choose, going):
    """New files, written, synced, renamed, and the directory synced; now and then one goes."""
    directory = os.path.join(directory, FILES)
    there, number = [], 0
    while going():
        number += 1
        name, blocks = f"file{number}", choose.randrange(1, 9)
        with open(os.path.join(directory, name + ".new"), "wb") as file:
            file.write(b"".join(stamp(lba, number, 7) for lba in range(blocks)))
            file.flush()
            os.fsync(file.fileno())
        os.rename(os.path.join(directory, name + ".new"), os.path.join(directory, name))
        sync_directory(directory)
        notes.add("made", name, number, blocks)
        there.append(name)
        if len(there) > 40:
            gone = there.pop(choose.randrange(len(there)))
            notes.add("going", gone)
            os.unlink(os.path.join(directory, gone))
            sync_directory(directory)
            notes.add("gone", gone)


def commit(directory, notes, choose, going, name):
    """Transactions of a few rows each; the account's sum must stay what it was."""
    database = sqlite3.connect(os.path.join(directory, name + ".db"), isolation_level=None)
    # Of each connection; the file remembers WAL alone.
    database.execute(f"PRAGMA journal_mode={DATABASES[name]}")
    database.execute("PRAGMA synchronous=FULL")
    number = 0
    while going():
        number += 1
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO entry VALUES (?, ?)", (number, os.urandom(choose.randrange(20, 3000)).hex()))
        a, b = choose.sample(range(8), 2)
        database.execute("UPDATE account SET amount = amount - ? WHERE id = ?", (number, a))
        database.execute("UPDATE account SET amount = amount + ? WHERE id = ?", (number, b))
        if number % 50 == 0:
            database.execute("DELETE FROM entry WHERE id <= ?", (number - 60,))
        database.execute("COMMIT")
        notes.add("committed", name, number)
    database.close()


def prepare(directory):
    with open(os.path.join(directory, "stamped"), "wb") as file:
        file.write(b"".join(stamp(lba, 0, 1) for lba in range(STAMPED_BLOCKS)))
        file.flush()
        os.fsync(file.fileno())
    os.mkdir(os.path.join(directory, FILES))
    for name, mode in DATABASES.items():
        database = sqlite3.connect(os.path.join(directory, name + ".db"), isolation_level=None)
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, text TEXT)")
        database.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER)")
        database.executemany("INSERT INTO account VALUES (?, 1000)", [(number,) for number in range(8)])
        database.close()
    sync_directory(directory)
    os.sync()


def load(directory, notes_path, seconds, seed):
    notes, end, failures = Notes(notes_path), time.monotonic() + float(seconds), []

    def guarded(work, *words):
        try:
            work(directory, notes, random.Random(f"{seed}/{work.__name__}/{words}"), lambda: time.monotonic() < end, *words)
        except Exception as error:
            failures.append(f"{work.__name__}: {error!r}")

    threads = [threading.Thread(target=guarded, args=words) for words in
               ((stamp_in_place,), (make_files,), *((commit, name) for name in DATABASES))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notes.file.close()
    if failures:
        sys.exit("; ".join(failures))


class Promises:
    """All notes of one load, for a judge."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.notes = [json.loads(line) for line in file]

    def judge(self, directory, until):
        """What is wrong with a file system on which everything that was promised up to a moment must be."""
        promised, begun, made, going, committed, count = {}, {}, {}, set(), dict.fromkeys(DATABASES, 0), 0
        for kind, when, *what in self.notes:
            if kind == "begun" and when <= until:
                begun[what[0]] = what[1]
            if when > until and kind != "going":
                continue
            count += kind != "begun"
            if kind == "stamped":
                promised.update({int(lba): sequence for lba, sequence in what[0].items()})
            elif kind == "made":
                made[what[0]] = what[1:]
            elif kind == "going" and when <= until:
                going.add(what[0])
            elif kind == "committed":
                committed[what[0]] = what[1]
        wrong = []
        self._judge_stamped(directory, promised, begun, wrong)
        self._judge_files(directory, made, going, wrong)
        for name, number in committed.items():
            self._judge_database(os.path.join(directory, name + ".db"), number, wrong)
        return wrong, count

    @staticmethod
    def _judge_stamped(directory, promised, begun, wrong):
        with open(os.path.join(directory, "stamped"), "rb") as file:
            for lba in range(STAMPED_BLOCKS):
                block, low = file.read(BLOCK), promised.get(lba, 1)
                # Between two promises a block may be torn, if the cut came while it was rewritten.
                found = read_stamp(block, lba, 0) if len(block) == BLOCK else -2
                if not low <= found <= max(begun.get(lba, 1), low) and not (found == -1 and begun.get(lba, 1) > low):
                    wrong.append(f"stamped block {lba}: {found}, promised {low}, begun {begun.get(lba, 1)}")

    @staticmethod
    def _judge_files(directory, made, going, wrong):
        for name, (number, blocks) in made.items():
            path = os.path.join(directory, FILES, name)
            if not os.path.exists(path):
                if name not in going:
                    wrong.append(f"{name} is not there")
                continue
            with open(path, "rb") as file:
                content = file.read()
            if content != b"".join(stamp(lba, number, 7) for lba in range(blocks)):
                wrong.append(f"{name} is not what was synced")

    @staticmethod
    def _judge_database(path, number, wrong):
        database = sqlite3.connect(path, isolation_level=None)
        try:
            if (answer := database.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                wrong.append(f"{path}: integrity check: {answer[:3]}")
            last = database.execute("SELECT coalesce(max(id), 0) FROM entry").fetchone()[0]
            if last < number:
                wrong.append(f"{path}: transaction {number} was committed, the last there is {last}")
            kept = database.execute("SELECT count(*) FROM entry WHERE id > ? AND id <= ?", (last - 50, last)).fetchone()[0]
            if kept != min(50, last):
                wrong.append(f"{path}: of the last 50 transactions {kept} are there")
            if (total := database.execute("SELECT sum(amount) FROM account").fetchone()[0]) != 8000:
                wrong.append(f"{path}: the accounts have {total} in all, not 8000")
        except sqlite3.Error as error:
            wrong.append(f"{path}: {error}")
        finally:
            database.close()


if __name__ == "__main__":
    load(*sys.argv[1:])
