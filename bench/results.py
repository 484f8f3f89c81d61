"""The samples of a run as the report asks for them, and how numbers are written."""

from samples import median

MISSING = "not measured"


class Results:
    """The samples of a run; each question about what was not measured is answered with None."""

    def __init__(self, samples):
        self._samples = samples

    def values(self, section, target, name, key):
        found = self._samples.get(section, {}).get(target, {}).get(name, [])
        return [key(s) if callable(key) else s.get(key) for s in found]

    def median(self, section, target, name, key):
        return median(self.values(section, target, name, key))

    def ratio(self, above, below):
        """The median of the rounds' ratios of two questions (section, target, name, key)."""
        return median(a / b for a, b in zip(self.values(*above), self.values(*below)) if a is not None and b)

    def to_queue(self, section, target, name):
        """The rate of small blocks with 32 in flight as a part of the floor's."""
        key = "queue_write_iops" if "write" in name else "queue_read_iops"
        return self.ratio((section, target, name, "iops"), (section, target, name, lambda s: s["floor"].get(key)))

    def targets(self, section):
        return list(self._samples.get(section, {}))

    def names(self, section):
        """What was measured in a section, in the order in which it was."""
        return list(dict.fromkeys(n for target in self._samples.get(section, {}).values() for n in target))


def quantity(value, unit="", digits=3):
    """A number with as many digits as mean something: 1.46 M, 564 k, 1.34 µs."""
    if value is None:
        return MISSING
    for limit, suffix in (1e6, "M"), (1e4, "k"):
        if unit == "IOPS" and value >= limit:
            return f"{value / {'M': 1e6, 'k': 1e3}[suffix]:.{digits}g} {suffix}"
    return (f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}") + (f" {unit}" if unit and unit != "IOPS" else "")


def times(value):
    return MISSING if value is None else f"{value:.2f} ×"


def percent(value):
    return MISSING if value is None else f"{100 * value:.0f} %"


def met(value, limit, at_least=True):
    if value is None:
        return "–"
    return "yes" if (value >= limit if at_least else value <= limit) else "**no**"


def table(head, rows):
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(map(str, row)) + " |" for row in rows),
        "",
    ]
