"""The plots of the report, drawn by gnuplot's svg terminal."""

import subprocess

from processes import Failed
from samples import median

STYLE = """set terminal svg size 860,520 font 'sans-serif,13' background '#ffffff'
set key outside right top
set grid lc rgb '#dddddd'
set border 3
set tics nomirror
"""


def draw(r, directory):
    """Draws all that was measured; returns (file name, title) of each plot."""
    percentiles = {f"CBD in-process, {t}": points(r, "in-process", t) for t in r.targets("in-process")}
    percentiles |= {t: points(r, "nbd", t) for t in r.targets("nbd")}
    percentiles |= {t: points(r, "raw file", t) for t in r.targets("raw file") if not t.startswith("CBD")}
    tails = (90, 99, 99.9, 99.99)
    plots = [
        (
            "latency.svg",
            "Latency percentiles, 4 KiB random reads, depth 1",
            percentiles,
            "set xlabel 'percentile'\nset ylabel 'µs'\nset logscale xy\nset xrange [1:*]\nset xtics ("
            + "'0' 1, '50' 2, "
            + ", ".join(f"'{t:g}' {1 / (1 - t / 100):g}" for t in tails)
            + ")\n",
        ),
        (
            "depth.svg",
            "IOPS over queue depth, 4 KiB random reads",
            sweep(r, "depth", "iops", float),
            "set xlabel 'queue depth'\nset ylabel 'IOPS'\nset logscale x 2\nset logscale y\nset format y '%.0s %c'\n",
        ),
        (
            "block-size.svg",
            "Bandwidth over block size, reads, depth 4",
            sweep(r, "block size", "mb_per_s", kibibytes),
            "set xlabel 'KiB'\nset ylabel 'MB/s'\nset logscale x 2\nset logscale y\n",
        ),
    ]
    drawn = []
    for name, title, series, axes in plots:
        series = {label: data for label, data in series.items() if data}
        if series:
            gnuplot(f"{directory}/{name}", title, series, axes)
            drawn.append((name, title))
    return drawn


def points(r, section, target):
    """Percentiles as 1 / (1 - p), which spreads the tail: the medians of the rounds."""
    rounds = r.values(section, target, "4k randread, depth 1", "percentiles")
    if not rounds:
        return []
    by_percentile = {}
    for one in rounds:
        for percentile, us in one:
            by_percentile.setdefault(percentile, []).append(us)
    return [(1 / (1 - p / 100), median(values)) for p, values in sorted(by_percentile.items()) if p < 99.995]


def sweep(r, section, key, x):
    return {
        target: [
            (x(name), r.median(section, target, name, key))
            for name in r.names(section)
            if r.values(section, target, name, key)
        ]
        for target in r.targets(section)
    }


def kibibytes(size):
    return float(size[:-1]) * {"k": 1, "m": 1024}[size[-1]]


def gnuplot(path, title, series, axes):
    lines = ", ".join(f"${'d'}{i} with linespoints lw 2 pt {i + 4} ps 0.6 title '{label}'" for i, label in enumerate(series))
    data = "".join(
        f"$d{i} << END\n" + "".join(f"{x} {y}\n" for x, y in points) + "END\n" for i, points in enumerate(series.values())
    )
    script = f"{STYLE}set output '{path}'\nset title '{title}'\n{axes}{data}plot {lines}\n"
    done = subprocess.run(["gnuplot"], input=script, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"gnuplot, {title}: {done.stderr.strip()[-400:]}")
