"""Three charts: a start from cold, a fail-over, and the cost of standing still, over daemons and over nodes."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import measures, scale, simulated
from tests.benchmarks.rows import Row

THOUSANDS = (1, 3, 10, 30, 100)
REST = (0, 1000, 10_000, 100_000)
NODES = (100, 300, 1000)
#: On the simulated nodes.
DAEMONS = simulated.DAEMONS

Points = dict[float, Row]


def draw(folder: Path) -> None:
    """Measure, and write the charts and what they show into a folder."""
    import matplotlib as mpl

    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    start = {thousand * 1e3: _first(scale.cold_start([thousand]), "from the request") for thousand in THOUSANDS}
    lost = {thousand * 1e3: _first(scale.fail_over(thousand), "kill -9") for thousand in THOUSANDS}
    by_daemons = _by_role(REST, lambda count: measures.scale_of_rest(count, seconds=4.0, rounds=3))
    by_nodes = _by_role(NODES, lambda count: simulated.measure([count], DAEMONS))
    _data(folder, {"cold start": start, "fail-over": lost, **by_daemons, **by_nodes})
    _seconds(folder / "cold-start.png", start, "coroutine daemons from cold, on two workers", "daemons")
    _seconds(folder / "fail-over.png", lost, "kill -9 of one of two workers, daemons on it", "daemons")
    _rest(folder / "rest.png", by_daemons, by_nodes)


def _first(rows: Iterator[Row], words: str) -> Row:
    return next(row for row in list(rows) if words in row.name)


def _by_role(counts: Sequence[int], measure: Callable[[int], Iterator[Row]]) -> dict[str, Points]:
    """What stands still at each count: commands, and processor time of the store and of the agent."""
    found: dict[str, Points] = {}
    for count in counts:
        for row in measure(count):
            for words in ("commands at rest", "agent's processor time", "Redis's processor time"):
                if words in row.name:
                    found.setdefault(f"{words} ({'nodes' if 'nodes' in row.name else 'daemons'})", {})[count] = row
    return found


def _data(folder: Path, series: dict[str, Points]) -> None:
    plain = {
        name: [{"x": x, "median": row.value, "low": row.low, "high": row.high} for x, row in points.items()]
        for name, points in series.items()
    }
    (folder / "charts.json").write_text(json.dumps(plain, indent=1) + "\n")


def _line(axes: Any, points: Points, label: str, *, colour: str | None = None) -> None:
    across = list(points)
    middle = [row.value for row in points.values()]
    below = [row.value - (row.value if row.low is None else row.low) for row in points.values()]
    above = [(row.value if row.high is None else row.high) - row.value for row in points.values()]
    axes.errorbar(across, middle, yerr=[below, above], marker="o", markersize=4, capsize=3, label=label, color=colour)


def _seconds(path: Path, points: Points, title: str, across: str) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    _line(axes, points, "median, least and most")
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel="seconds", title=title)
    axes.grid(visible=True, which="both", alpha=0.25)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _rest(path: Path, by_daemons: dict[str, Points], by_nodes: dict[str, Points]) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 3.6), layout="constrained")
    for axes, series, across in ((left, by_daemons, "daemons on one node"), (right, by_nodes, "simulated nodes")):
        for name, points in series.items():
            shown = name.partition(" (")[0] + (", 1/s" if "commands" in name else ", % of a core")
            _line(axes, points, shown)
        axes.set_xscale("symlog", linthresh=1000) if axes is left else axes.set_xscale("log")
        axes.set_yscale("symlog", linthresh=1) if axes is left else axes.set_yscale("log")
        axes.set(xlabel=across, title=f"at rest, over {across}")
        axes.grid(visible=True, which="both", alpha=0.25)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
