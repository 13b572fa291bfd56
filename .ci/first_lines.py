"""Measure how many docstrings begin with a line that needs a noun from elsewhere to be understood.

    python .ci/first_lines.py [-v] [FOLDER]

Counts first lines of the docstrings of functions, methods and classes that contain a pronoun (it, its, they, them,
their, one, ones), prints the share, and exits with 1 if the share is above the limit. ``-v`` lists the lines.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: Some pronouns stand beside their noun in the same line, so that the share cannot be required to be zero.
LIMIT: Final = 0.15
PRONOUN: Final = re.compile(r"\b(it|its|them|they|one|ones|their)\b", re.IGNORECASE)


def first_lines(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line number and the first line of each docstring of a function, method or class."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node.body[0].lineno, docstring.splitlines()[0]


def main(arguments: list[str] | None = None) -> int:
    """Print the share of first lines with a pronoun; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure pronouns in first lines of docstrings.")
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "celery_daemons", metavar="FOLDER")
    parser.add_argument("-v", "--verbose", action="store_true", help="list the lines")
    options = parser.parse_args(arguments)
    total = 0
    unclear = []
    for path in sorted(options.folder.rglob("*.py")):
        for number, line in sorted(first_lines(path.read_text())):
            total += 1
            if PRONOUN.search(line):
                unclear.append(f"{path.relative_to(options.folder.parent)}:{number}: {line}")
    if options.verbose:
        print(*unclear, sep="\n")
    share = len(unclear) / max(1, total)
    print(f"{len(unclear)} of {total} first lines of docstrings have a pronoun: {share:.1%}, limit {LIMIT:.0%}")
    return 1 if share > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
