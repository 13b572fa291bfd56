"""``make bench``: prints a table, and writes the same as JSON if a file is named.

``python -m tests.benchmarks [--json FILE] [MEASURE …]``
"""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.measures import MEASURES
from tests.benchmarks.rows import Row


def main() -> None:
    """Run the measures that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("measures", nargs="*", choices=[[], *MEASURES], metavar="MEASURE", help=", ".join(MEASURES))
    arguments = parser.parse_args()
    console = Console()
    rows: list[Row] = []
    for name in arguments.measures or MEASURES:
        with console.status(f"measuring {name} …"):
            rows += MEASURES[name]()
    table = Table("measure", "value", "aim at most", title=f"Python {platform.python_version()}, {platform.system()}")
    for row in rows:
        aim = "" if row.aim is None else f"{row.aim:g} {row.unit}"
        met = row.aim is None or row.value <= row.aim
        table.add_row(row.name, f"{row.value:.3g} {row.unit}", aim, style=None if met else "bold red")
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
