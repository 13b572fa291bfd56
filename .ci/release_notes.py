"""Print the section of the changelog for a release.

    python .ci/release_notes.py TAG [--version VERSION] [--changelog FILE]

TAG is the version with a leading ``v``. Exits with a message if the tag does not match the version of the package, if
the changelog has no section for the version, or if the section is empty: the release workflow publishes nothing then.
"""

import argparse
import re
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def section(changelog: str, version: str) -> str:
    """Return the text below the heading of ``version``. Raises LookupError if there is none."""
    # `## 1.2.0`, `## [1.2.0](…)`, each perhaps followed by a date; the next heading of that level ends the section.
    heading = rf"^## \[?v?{re.escape(version)}\]?(?![\w.])[^\n]*$"
    found = re.search(heading + r"\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"the changelog has no section for {version}")
    text = found[1].strip()
    if not text:
        raise LookupError(f"the changelog's section for {version} is empty")
    return text


def main(arguments: list[str] | None = None) -> None:
    """Print the section, or exit with the reason why there is none."""
    parser = argparse.ArgumentParser(description="Print the changelog's section for a release.")
    parser.add_argument("tag", metavar="TAG")
    parser.add_argument("--version", help="version of the package; by default that of pyproject.toml")
    parser.add_argument("--changelog", type=Path, default=ROOT / "CHANGELOG.md", metavar="FILE")
    options = parser.parse_args(arguments)
    version = options.version or tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    if options.tag != f"v{version}":
        parser.error(f"the tag {options.tag!r} does not match version {version} of the package: tag v{version}")
    try:
        print(section(options.changelog.read_text(), version))
    except LookupError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
