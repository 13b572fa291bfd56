"""The pages of the documentation: links, headings, code blocks and tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = ROOT / "README.md"
DOCS: Final = ROOT / "docs"
REFERENCE: Final = DOCS / "reference"
PAGES: Final = [
    page
    for page in (
        README,
        ROOT / "CHANGELOG.md",
        *sorted(DOCS.rglob("*.md")),
        *sorted(ROOT.glob("examples/**/README.md")),
    )
    if page.exists()
]

#: A link or an image, but not one inside a code span.
_LINK: Final = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
#: A code block, also one that is indented as part of a list.
_FENCE: Final = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """Name a page as the reader of a failure knows it."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language, without their indentation."""
    return [
        "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        for indent, found, code in _FENCE.findall(page.read_text())
        if found == language
    ]


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name: its headings, in lower case, with hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page: Path, heading: str) -> str:
    """Return the text under a heading of the second level."""
    _, _, rest = page.read_text().partition(f"\n## {heading}\n")
    assert rest, f"{name_of(page)} has no section {heading}"
    return rest.partition("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Return the rows of a text's tables by the code in their first cell; a cell of several gives several rows."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|"):
            found.update((name, cells[1:]) for name in re.findall(r"`([^`]+)`", cells[0]))
    return found


def rows_of(page: Path) -> dict[str, list[str]]:
    """Return the rows of a page's tables."""
    return rows(page.read_text())


def links() -> Iterator[tuple[Path, str]]:
    """Yield every link to somewhere in this repository, with its page."""
    for page in PAGES:
        for target in _LINK.findall(prose(page)):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target
