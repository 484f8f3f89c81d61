"""The moments of a world under its condition, each a cell with what it states: see conditions.py."""

import os
import signal
import time
from dataclasses import dataclass, field
from typing import Callable

from world import BEAT_MS, PLAIN, World, Wrong, await_that

# Of the cells of a world whose start failed, which says why.
NOT_STARTED = "the world did not start"
PRINTS = ("tp-list", "tp-info", "host-list", "channel-list", "backend-list", "dev-list", "dump", "tp-reg", "backend-start", "backend-resize", "dev-start", "adm")
GROUPS = {
    "lists": ("tp-list", "tp-info", "host-list", "channel-list", "backend-list", "dev-list", "dump"),
    "starts": ("tp-reg", "backend-start", "dev-start", "adm"),
    "stops": ("tp-unreg", "backend-stop", "dev-stop"),
    "clears": ("host-clear", "dev-clear", "backend-clear"),
    "prints": PRINTS,
}


@dataclass(frozen=True)
class Verb:
    """A verb of cbdctrl: whose daemon is asked, its words, and what is there after it and was not before, or the other way round."""

    name: str
    daemon: str
    words: tuple
    effect: Callable = lambda world, before, after: before == after
    holds: str = "done"


def there(kind, region, name):
    return lambda world, before, after: (key := (kind, os.path.join(world.shm, region), name.format(home=world.home, shm=world.shm))) in after and key not in before


def gone(kind, region, name):
    return lambda world, before, after: (key := (kind, os.path.join(world.shm, region), name.format(home=world.home, shm=world.shm))) not in after and key in before


def grown(world, before, after):
    return (key := ("backend", world.region, world.path("grow"))) in after and after[key][1] == os.path.getsize(world.path("grow")) == 256 << 10


# Lists first, of what is whole; then what changes something. {words} are the world's.
VERBS = (
    Verb("tp-list", "beta", ("tp-list",)),
    Verb("tp-info", "alpha", ("tp-info",)),
    Verb("host-list", "alpha", ("host-list",)),
    Verb("channel-list", "beta", ("channel-list", "-t", "{main}")),
    Verb("backend-list", "alpha", ("backend-list", "-a")),
    Verb("dev-list", "beta", ("dev-list", "-t", "{main}", "-a")),
    Verb("dump", "alpha", ("dump",)),
    Verb("wait", "beta", ("wait", "--timeout", "10")),
    Verb("host-clear", "beta", ("host-clear", "-t", "{main}", "--host-id", "{host}"), holds="refused 4"),
    Verb("dev-clear", "alpha", ("dev-clear", "-d", "{device}"), holds="refused 4"),
    Verb("backend-clear", "beta", ("backend-clear", "-t", "{main}", "-b", "{backend}"), holds="refused 4"),
    Verb("tp-reg", "alpha", ("tp-reg", "-H", "alpha", "-p", "{shm}/new", "--format", "--size", "4M"), there("transport", "new", "{shm}/new")),
    Verb("backend-start", "alpha", ("backend-start", "-p", "{home}/new"), there("backend", "region", "{home}/new")),
    Verb("adm", "alpha", ("adm", "op=backend-start,path={home}/adm"), there("backend", "region", "{home}/adm")),
    Verb("backend-resize", "alpha", ("backend-resize", "-b", "grow", "--size", "256K"), grown),
    Verb("dev-start", "beta", ("dev-start", "-t", "{main}", "-b", "spare", "--attach", "none", "--name", "third"), there("device", "region", "third")),
    Verb("dev-stop", "beta", ("dev-stop", "-d", "second"), gone("device", "region", "second")),
    Verb("backend-stop", "alpha", ("backend-stop", "-b", "old"), gone("backend", "region", "{home}/old")),
    Verb("tp-unreg", "alpha", ("tp-unreg", "-t", "{shm}/left"), gone("transport", "left", "{shm}/left")),
)


def nothing(_):
    """A condition that has nothing to switch."""


@dataclass(frozen=True)
class Condition:
    """
    What surrounds a world, and what each moment then states.

    When it is there: 'always' (from the start of the daemons, by wrap, stderr, prepare), 'moments' (switched on before each moment and off
    after it), or 'once' (switched on when the world is built). In the latter two the start is another life of both daemons, after the stop.

    What a moment states is one or more of these, with '|' between them:
        done            it succeeds, and its effect is there
        warned N        exit code N, and the effect is there
        refused N N…    one of these exit codes, one line that says why, and nothing has changed
        ended N N…      of the start: one of these exit codes and one line that says why, before anything is done
        errors          of the load: requests fail and are answered; what was acknowledged is on the disk
        unserved        of the load: another client is not served
        waits           of the start: the daemons run, and 'cbdctrl wait' says what does not
        empty           of the start: the daemons run, and nothing is wanted
    """

    kind: str
    name: str
    what: str
    when: str = "always"
    who: str = "both"
    wrap: str = PLAIN
    stderr: Callable | None = None
    ctl_wrap: str | None = None
    ctl_stdout: Callable | None = None
    ctl_stderr: Callable | None = None
    ctl_cwd: Callable | None = None
    prepare: Callable = nothing
    started: Callable = nothing
    on: Callable = nothing
    off: Callable = nothing
    needs: tuple = ("root",)
    start: str = "done"
    idle: str = "done"
    load: str = "done"
    stop: str = "done"
    verbs: dict = field(default_factory=dict)
    words: dict = field(default_factory=dict)
    effects: dict = field(default_factory=dict)
    reports: str | None = None
    rival: str = "disk"
    # What holds in every moment between start and stop, besides.
    extra: Callable = nothing
    # What is back when the switch is off again: everything, the device alone, or nothing.
    heals: str = "all"

    def holds(self, verb):
        """What the verb states here: by its name, its group, the daemon that it asks, or all."""
        groups = (group for group, names in GROUPS.items() if verb.name in names)
        return next((self.verbs[key] for key in (verb.name, *groups, verb.daemon, "*") if key in self.verbs), verb.holds)

    @property
    def only_start(self):
        return self.when == "always" and "done" not in self.start

    def cells(self):
        """The names of its moments, with what each states, in their order."""
        if self.only_start:
            return [("start", self.start)]
        moments = [("idle", self.idle), ("load", self.load), *((verb.name, self.holds(verb)) for verb in VERBS), ("stop", self.stop)]
        return [("start", self.start), *moments] if self.when == "always" else [*moments, ("start", self.start)]


def fits(stated, outcome, codes=()):
    """Whether what was seen is one of what is stated."""
    for alternative in stated.split("|"):
        word, *numbers = alternative.split()
        if word == outcome and (not numbers or any(int(number) in codes for number in numbers)):
            return True
    return False


class Run:
    """One condition from its start to its end; tells of each cell."""

    def __init__(self, condition, home, shm, cbdd, cbdctrl, seed, tell):
        self.condition, self.tell = condition, tell
        self.world = World(home, shm, cbdd, cbdctrl, seed)

    def under(self, daemon):
        return self.condition.who in ("both", daemon.name)

    def launch(self, daemon):
        if self.under(daemon):
            stderr = self.condition.stderr(self.world) if self.condition.stderr else None
            daemon.launch(self.condition.wrap.replace("{home}", self.world.home).replace("{alpha}", str(self.world.alpha.pid)), stderr)
        else:
            daemon.launch()

    def run(self):
        world, condition = self.world, self.condition
        left = [name for name, _ in condition.cells()]

        def cell(name, action):
            if name in left:
                left.remove(name)
            started = time.monotonic()
            try:
                action()
                world.check(ended=world.daemons if name in ("start", "stop") else ())
                if name not in ("start", "stop"):
                    condition.extra(world)
                self.tell(condition, name, None, time.monotonic() - started)
                return True
            except (Wrong, ProcessLookupError) as e:
                dead = "".join(f"; {daemon.name} ended with exit code {daemon.process.poll()}: {daemon.text()[-600:]}" for daemon in world.daemons if daemon.process and not daemon.alive() and daemon.process.returncode)
                self.tell(condition, name, f"{e}{dead}", time.monotonic() - started)
                return False

        try:
            condition.prepare(world)
            if condition.when == "always":
                whole = cell("start", self.first_start)
            else:
                try:
                    self.first_start()
                    whole = True
                except Wrong as e:
                    self.tell(condition, left.pop(0), f"the world could not be built: {e}", 0)
                    whole = False
            if not whole or condition.only_start:
                for name in left:
                    self.tell(condition, name, NOT_STARTED, 0)
                return
            if condition.when == "once":
                condition.on(world)
            cell("idle", lambda: self.switched(self.idle))
            cell("load", lambda: self.switched(self.load))
            for verb in VERBS:
                cell(verb.name, lambda: self.switched(lambda: self.verb(verb)))
            cell("stop", lambda: self.switched(self.stop))
            if condition.when != "always":
                cell("start", self.start_again)
        finally:
            world.close()

    def switched(self, action):
        """The moment, with the condition switched on."""
        if self.condition.when != "moments":
            return action()
        self.condition.on(self.world)
        try:
            action()
            self.world.check(ended=self.world.daemons)
        finally:
            self.condition.off(self.world)
            self.world.guarded.clear()

    def first_start(self):
        world, condition = self.world, self.condition
        for daemon in world.daemons:
            self.launch(daemon)
        codes = {daemon: daemon.ready() for daemon in world.daemons}
        if condition.when == "always":
            self.judge_start(codes)
        if condition.only_start:
            return
        if any(code is not None for code in codes.values()):
            raise Wrong(f"a daemon ended at its start: {codes.values()}")
        condition.started(world)
        world.build()

    def judge_start(self, codes):
        """What a start that ends says, where it may end at all."""
        for daemon, code in codes.items():
            ends = "ended" in self.condition.start and self.under(daemon)
            if code is None:
                if ends and "done" not in self.condition.start:
                    raise Wrong(f"{daemon.name} started; stated is '{self.condition.start}'")
                continue
            lines = daemon.text().strip().splitlines()
            last = lines[-1] if lines else ""
            if not ends or not fits(self.condition.start, "ended", (code,)):
                raise Wrong(f"{daemon.name} ended at its start with exit code {code}; stated is '{self.condition.start}': {last[:300]}")
            if not self.condition.stderr and (not last.startswith("cbdd: ") or sum(line.startswith("cbdd: ") for line in lines) != 1):
                raise Wrong(f"{daemon.name} does not say in one line why it does not start: {last[:300]}")

    def idle(self):
        world = self.world
        before = {daemon: world.shape(daemon) for daemon in world.daemons}
        time.sleep(4 * BEAT_MS / 1000)
        for daemon in world.daemons:
            world.last[daemon] = now = world.shape(daemon)
            if now != before[daemon]:
                raise Wrong(f"without a verb {daemon.name} had {before[daemon]} and has {now}")
        if self.condition.reports:
            await_that(f"that a list says '{self.condition.reports}'", lambda: any(self.condition.reports in str(world.things(daemon)) for daemon in world.daemons))

    def load(self):
        world = self.world
        said = world.load()
        if not fits(self.condition.load, said.split(" ")[0]):
            raise Wrong(f"the load ended with {said}; stated is '{self.condition.load}'")
        if os.path.lexists(world.path(self.condition.rival)):
            world.rival_is_refused(world.path(self.condition.rival))

    def verb(self, verb):
        world, condition = self.world, self.condition
        daemon = getattr(world, verb.daemon)
        names = {"home": world.home, "shm": world.shm, "main": world.main, "host": world.hosts["alpha"], "device": world.devices["main"], "backend": world.backends["disk"]}
        words = [word.format(**names) for word in condition.words.get(verb.name, verb.words)]
        before = world.last.pop(daemon, None) or world.shape(daemon)
        wrap = condition.ctl_wrap and condition.ctl_wrap.replace("{home}", world.home)
        code, out, said = world.ctl(daemon, words, wrap, *(make and make(world) for make in (condition.ctl_stdout, condition.ctl_stderr, condition.ctl_cwd)))
        after = world.last[daemon] = world.shape(daemon)
        stated = condition.holds(verb)
        effect = condition.effects.get(verb.name, verb.effect)(world, before, after)
        told = f"exit code {code}, its effect is {'there' if effect else 'not there'}, it said: {(said or out).strip()[:300]}; stated is '{stated}'"
        mute = condition.ctl_stderr is not None or (condition.ctl_wrap and "2>" in condition.ctl_wrap)
        # What changes nothing has its effect in any case.
        if code == 0:
            if not effect or not fits(stated, "done"):
                raise Wrong(told)
            if condition.ctl_stdout is None and not condition.ctl_wrap and bool(out) != (verb.name in PRINTS) and verb.name != "wait":
                raise Wrong(f"it printed '{out.strip()[:100]}': {told}")
            return
        if not mute and said.count("\n") != 1 and verb.name != "wait":
            raise Wrong(f"not one line: {told}")
        if fits(stated, "warned", (code,)) and effect:
            return
        if not fits(stated, "refused", (code,)) or before != after:
            raise Wrong(told)

    def stop(self):
        world, condition = self.world, self.condition
        for daemon in world.daemons:
            daemon.signal(signal.SIGTERM)
        for daemon in world.daemons:
            code = daemon.ended()
            if not (code == 0 and fits(condition.stop, "done")) and not (code != 0 and self.under(daemon) and fits(condition.stop, "warned", (code,))):
                raise Wrong(f"{daemon.name} ended with exit code {code} after SIGTERM; stated is '{condition.stop}': {daemon.text()[-300:].strip()}")

    def waits(self):
        """The exit codes of 'cbdctrl wait' of both."""
        return [self.world.ctl(daemon, ["wait", "--timeout", "1" if "waits" in self.condition.start else "20"]) for daemon in self.world.daemons]

    def start_again(self):
        """The next life of both daemons, which start what their records have."""
        world, condition = self.world, self.condition
        for daemon in world.daemons:
            if daemon.alive():
                raise Wrong(f"{daemon.name} still runs")
            daemon.forget_link()
            open(daemon.log, "w").close()
            world.log_seen[daemon] = 0
        if condition.when == "moments":
            condition.on(world)
        try:
            for daemon in world.daemons:
                self.launch(daemon)
            codes = {daemon: daemon.ready() for daemon in world.daemons}
            self.judge_start(codes)
            running = [daemon for daemon, code in codes.items() if code is None]
            if len(running) == 2:
                waits = self.waits()
                found = "waits" if any(code != 0 for code, _, _ in waits) else "done" if world.things(world.beta) else "empty"
                if not fits(condition.start, found):
                    raise Wrong(f"the next life is '{found}', stated is '{condition.start}': {[(code, (out + said).strip()[:300]) for code, out, said in waits]}")
                if found == "done":
                    world.link_device()
                    said = world.load()
                    if said != "done" and not fits(condition.load, said.split(" ")[0]):
                        raise Wrong(f"the load of the next life ended with {said}")
            world.check(ended=[daemon for daemon in world.daemons if daemon not in running])
        finally:
            if condition.when == "moments":
                condition.off(world)
                world.guarded.clear()
        if condition.when == "moments" and condition.heals:
            for daemon in world.daemons:
                if not daemon.alive():
                    self.launch(daemon)
                    if (code := daemon.ready()) is not None:
                        raise Wrong(f"{daemon.name} does not start when the condition is over: exit code {code}: {daemon.text()[-300:].strip()}")
                daemon.signal(signal.SIGHUP)
            for daemon in world.daemons if condition.heals == "all" else [world.beta]:
                code, out, said = world.ctl(daemon, ["wait", "--timeout", "20", *(["-d", "main"] if condition.heals == "device" else [])])
                if code != 0:
                    raise Wrong(f"when the condition is over, {daemon.name} does not have what its record wants: {(out + said).strip()[:300]}")
            world.link_device()
            if (said := world.load()) != "done":
                raise Wrong(f"when the condition is over, the load ends with {said}")
