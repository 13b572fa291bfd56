"""``make bench``: print a table of figures; on request also write JSON and charts.

``python -m tests.benchmarks [--json FILE] [--charts FOLDER] [MEASURE …]``
"""

import argparse
import json
import platform
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.measures import MEASURES
from tests.benchmarks.rows import Row


def main() -> None:
    """Run the measures that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--charts", type=Path, metavar="FOLDER", help="measure only what the charts show; draw them")
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], metavar="MEASURE", help=", ".join(MEASURES))
    arguments = parser.parse_args()
    console = Console()
    if arguments.charts:
        if find_spec("matplotlib") is None:
            parser.error("--charts needs matplotlib: pip install -e '.[bench]'")
        from tests.benchmarks import charts

        with console.status("measuring for the charts …"):
            charts.draw(arguments.charts)
        return
    rows: list[Row] = []
    for name in arguments.measures or MEASURES:
        with console.status(f"measuring {name} …"):
            for row in MEASURES[name]():
                rows.append(row)
                if arguments.json:
                    # After each: what was measured so far is not lost with what comes.
                    arguments.json.write_text(json.dumps([asdict(one) for one in rows], indent=2) + "\n")
    console.print(_table(rows))


def _table(rows: list[Row]) -> Table:
    title = f"Python {platform.python_version()}, {platform.system()}; red is above the aim"
    table = Table("measure", "median", "least – most", "aim at most", "beside a bare operation", title=title)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:.3g} {row.unit}",
            "" if row.low is None else f"{row.low:.3g} – {row.high:.3g} of {row.rounds}",
            "" if row.aim is None else f"{row.aim:g} {row.unit}",
            "" if row.ratio is None else f"{row.ratio:.3g} × {row.bare}",
            style=None if row.met else "bold red",
        )
    return table


if __name__ == "__main__":
    main()
