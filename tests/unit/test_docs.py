"""The documentation keeps up with the code: links lead somewhere, and what can be compared with its source is."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from celery_daemons import settings
from celery_daemons.domain.options import LauncherOptions

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [page for page in (README, ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))) if page.exists()]

pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests of a wheel run without the documentation")

#: A link or an image, but not one inside a code span.
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def package() -> Path:
    """Return the folder of the package under test."""
    spec = find_spec("celery_daemons")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


VERBS = sorted(path for path in (package() / "store" / "lua").glob("*.lua") if not path.stem.startswith("_"))


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return [code for found, code in FENCE.findall(page.read_text()) if found == language]


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name: its headings, in lower case, with hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path) -> dict[str, list[str]]:
    """Return the rows of a page's tables by the code in their first cell; a cell of several gives several rows."""
    found: dict[str, list[str]] = {}
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|"):
            found.update((name, cells[1:]) for name in re.findall(r"`([^`]+)`", cells[0]))
    return found


def shown(value: Any) -> str:
    """Write a default as the tables do."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def links() -> Iterator[tuple[Path, str]]:
    """Yield every link to somewhere in this repository, with its page."""
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


def test_there_is_documentation_to_be_looked_at() -> None:
    expected = {"concepts", "guarantees", "internals", "operations", "quickstart", "redis-layout"}

    assert {page.stem for page in PAGES} >= expected | {"README", "CHANGELOG"}
    assert len(list(links())) > 20
    assert len(VERBS) > 10


def test_every_relative_link_leads_to_a_file_and_to_a_heading_in_it() -> None:
    broken = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{page.name}: {target}")

    assert not broken


@pytest.mark.parametrize("name", sorted(settings.NAMES))
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    table = rows(DOCS / "operations.md")

    assert settings.PREFIX + name in table
    if name in settings.DEFAULTS:  # the URL's is derived
        assert table[settings.PREFIX + name][0] == f"`{shown(settings.DEFAULTS[name])}`"


@pytest.mark.parametrize("name", sorted(LauncherOptions.__slots__))
def test_every_option_of_a_launcher_is_in_the_table_with_its_default(name: str) -> None:
    table = rows(DOCS / "quickstart.md")
    default = getattr(LauncherOptions(), name)

    assert name in table
    # The default of `isolation` depends on the function, and nothing is told as `none`.
    if isinstance(default, (bool, str)) and name != "isolation":
        assert table[name][0] == f"`{shown(default)}`"
    elif isinstance(default, (int, float)):
        assert re.search(rf"\b{default:g}\b", table[name][0])


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
def test_every_verb_in_lua_is_in_the_table_of_verbs(path: Path) -> None:
    assert path.stem in rows(DOCS / "redis-layout.md")


def test_every_event_that_a_verb_journals_is_in_the_table_of_events() -> None:
    code = "".join(path.read_text() for path in VERBS)
    written = set(re.findall(r"journal\(KEYS\[\d+\], '([a-z-]+)'", code))

    assert len(written) > 10
    assert written <= rows(DOCS / "redis-layout.md").keys()


def test_every_command_is_in_the_table_of_commands() -> None:
    from celery_daemons.cli import daemons

    documented = {word for name in rows(DOCS / "operations.md") for word in name.split()[:1]}
    commands = daemons.list_commands(None)  # type: ignore[arg-type]

    assert len(commands) > 10
    assert set(commands) <= documented


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for number, code in enumerate(blocks(page, "python"), start=1):
        compile(code, f"{page.name}, block {number}", "exec")
