"""Render the rules and dashboards: ``python -m mixin`` writes them, ``python -m mixin --check`` compares."""

import argparse
import json
import sys
from pathlib import Path

import yaml

from mixin import boards, grafana, rules

FOLDER = Path(__file__).parent / "rendered"
_HEADER = "# Rendered by `python -m mixin` from mixin/rules.py.\n"


def rendered() -> dict[str, str]:
    """Return the content of each file by its name."""
    return {
        "rules.yaml": _HEADER + yaml.safe_dump(rules.document(), sort_keys=False, width=110, allow_unicode=True),
        **{
            f"{name}.json": json.dumps(grafana.document(board), indent=2) + "\n"
            for name, board in boards.BOARDS.items()
        },
    }


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mixin", description="Render the rules and dashboards.")
    parser.add_argument("--check", action="store_true", help="compare only, and exit with 1 if a file is outdated")
    check = parser.parse_args(arguments).check
    status = 0
    for name, text in rendered().items():
        path = FOLDER / name
        if check and (not path.exists() or path.read_text() != text):
            print(f"{path} is outdated: run python -m mixin")
            status = 1
        elif not check:
            path.write_text(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
