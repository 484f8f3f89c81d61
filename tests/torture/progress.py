"""What a mode has done so far, over several runs: a JSON file that each run continues."""

import json
import os
import statistics


class Progress:
    """Counts and samples of one mode; saved after every round, so that a run may be ended at any time."""

    def __init__(self, path, mode):
        self.path, self.mode, self.all = path, mode, {}
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.all = json.load(file)
        self.own = self.all.setdefault(mode, {"counts": {}, "samples": {}, "seeds": []})

    def count(self, **amounts):
        for name, amount in amounts.items():
            self.own["counts"][name] = round(self.own["counts"].get(name, 0) + amount, 3)

    def sample(self, name, values):
        self.own["samples"].setdefault(name, []).extend(round(value, 6) for value in values)

    def seed(self, seed):
        self.own["seeds"].append(seed)

    def save(self):
        if self.path:
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump(self.all, file)
            os.replace(self.path + ".new", self.path)

    def done(self, name):
        return self.own["counts"].get(name, 0)

    def text(self):
        """One line: all counts, and of the samples the median and the longest."""
        parts = [f"{value:g} {name.replace('_', ' ')}" for name, value in self.own["counts"].items()]
        for name, values in self.own["samples"].items():
            if values:
                parts.append(f"{name.replace('_', ' ')}: median {statistics.median(values) * 1000:.0f} ms, longest {max(values) * 1000:.0f} ms")
        return f"{self.mode}: " + ", ".join(parts)
