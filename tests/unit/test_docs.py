"""The documentation keeps up with the code: links lead somewhere, and what can be compared with its source is."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

import celery_daemons
from celery_daemons import DaemonRecord, Daemons, DaemonStatus, Move, Node, NodeStatus, settings
from celery_daemons.cli.documents import Event
from celery_daemons.client.lookups import ClusterStatus
from celery_daemons.domain.options import LauncherOptions

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [
    page
    for page in (
        README,
        ROOT / "CHANGELOG.md",
        *sorted(DOCS.rglob("*.md")),
        *sorted(ROOT.glob("examples/**/README.md")),
    )
    if page.exists()
]

pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests of a wheel run without the documentation")

#: A link or an image, but not one inside a code span.
LINK = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
#: A code block, also one that is indented as part of a list.
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def package() -> Path:
    """Return the folder of the package under test."""
    spec = find_spec("celery_daemons")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


VERBS = sorted(path for path in (package() / "store" / "lua").glob("*.lua") if not path.stem.startswith("_"))


def name_of(page: Path) -> str:
    """Name a page as the reader of a failure knows it."""
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", page.read_text())


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language, without their indentation."""
    return [
        "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
        for indent, found, code in FENCE.findall(page.read_text())
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


def shown(value: Any) -> str:
    """Write a default as the tables do."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def links() -> Iterator[tuple[Path, str]]:
    """Yield every link to somewhere in this repository, with its page."""
    for page in PAGES:
        for target in LINK.findall(prose(page)):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


def test_the_documentation_is_found() -> None:
    kinds = {page.parent.name for page in DOCS.rglob("*.md")}

    assert kinds >= {"tutorial", "how-to", "reference", "explanation"}
    assert README in PAGES
    assert len(list(links())) > 50
    assert len(VERBS) > 10


def test_every_relative_link_leads_to_a_file_and_to_a_heading_in_it() -> None:
    broken = []
    for page, target in links():
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{name_of(page)}: {target}")

    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_picture_has_a_text_alternative(page: Path) -> None:
    assert not re.findall(r"!\[\s*\]\(", prose(page))


def test_every_diagram_has_a_title_and_a_description() -> None:
    diagrams = sorted((DOCS / "_static").glob("*.svg"))

    assert len(diagrams) == 2
    for diagram in diagrams:
        text = diagram.read_text()
        assert re.search(r"<title [^>]*>\S", text), diagram.name
        assert re.search(r"<desc [^>]*>\S", text), diagram.name


@pytest.mark.parametrize("name", sorted(settings.NAMES))
def test_every_setting_is_in_the_table_with_its_default(name: str) -> None:
    table = rows_of(REFERENCE / "settings.md")

    assert settings.PREFIX + name in table
    if name not in ("redis_url", "namespace"):  # these are derived from the app
        assert table[settings.PREFIX + name][0] == f"`{shown(settings.DEFAULTS[name])}`"


def test_every_scheme_of_a_url_is_in_the_table_of_settings() -> None:
    (_, meaning) = rows_of(REFERENCE / "settings.md")["daemons_redis_url"]

    assert set(re.findall(r"`(\S+)`", meaning)) == set(settings._REDIS_SCHEMES)


@pytest.mark.parametrize("name", sorted(LauncherOptions.__slots__))
def test_every_option_of_a_launcher_is_in_the_table_with_its_default(name: str) -> None:
    table = rows_of(REFERENCE / "options.md")
    default = getattr(LauncherOptions(), name)

    assert name in table
    # The default of `isolation` depends on the function, and nothing is written as `none`.
    if isinstance(default, (bool, str)) and name != "isolation":
        assert table[name][0] == f"`{shown(default)}`"
    elif isinstance(default, (int, float)):
        assert re.search(rf"\b{default:g}\b", table[name][0])


@pytest.mark.parametrize("name", celery_daemons.__all__)
def test_every_public_name_is_in_the_reference_of_the_api(name: str) -> None:
    page = (REFERENCE / "api.md").read_text()

    assert re.search(rf"^\.\. auto(class|exception):: {name}$", page, re.MULTILINE)
    assert inspect.getdoc(getattr(celery_daemons, name))


@pytest.mark.parametrize("name", [name for name in vars(Daemons) if not name.startswith("_")])
def test_every_public_call_has_a_docstring_for_the_reference(name: str) -> None:
    assert inspect.getdoc(getattr(Daemons, name))


@pytest.mark.parametrize("path", VERBS, ids=lambda path: path.stem)
def test_every_verb_in_lua_is_in_the_table_of_verbs(path: Path) -> None:
    assert path.stem in rows_of(REFERENCE / "redis-layout.md")


def test_every_event_that_a_verb_journals_is_in_the_table_of_events() -> None:
    code = "".join(path.read_text() for path in VERBS)
    written = set(re.findall(r"journal\(KEYS\[\d+\], '([a-z-]+)'", code))

    assert len(written) > 10
    assert written <= rows_of(REFERENCE / "events.md").keys()


@pytest.mark.parametrize(("heading", "statuses"), [("Of a daemon", DaemonStatus), ("Of a node", NodeStatus)])
def test_the_tables_of_statuses_are_those_of_the_code(heading: str, statuses: type[DaemonStatus]) -> None:
    assert rows(section(REFERENCE / "statuses.md", heading)).keys() == set(statuses)


@pytest.mark.parametrize(
    ("heading", "record"),
    [("status", ClusterStatus), ("nodes", Node), ("list", DaemonRecord), ("rebalance", Move), ("events", Event)],
)
def test_every_field_of_a_json_document_is_in_its_table(heading: str, record: Any) -> None:
    documented = rows(section(REFERENCE / "json.md", heading)).keys()

    assert documented == {field.name for field in fields(record)}


def command_rows() -> dict[str, str]:
    """Return the rows of the table of commands by the command's name: what the first cell says after it."""
    table = rows_of(REFERENCE / "command-line.md")
    return {line.split()[0]: line for line in table}


def test_the_table_of_commands_is_that_of_the_program() -> None:
    from celery_daemons.cli import daemons

    commands = daemons.list_commands(None)  # type: ignore[arg-type]

    assert len(commands) > 10
    assert list(command_rows()) == commands


def test_every_option_of_a_command_is_in_its_row() -> None:
    from celery_daemons.cli import daemons

    missing = []
    for name, line in command_rows().items():
        command = daemons.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        missing += [f"{name} {option}" for option in options - {"--json", "--help"} if option not in line]

    assert not missing


def test_every_option_of_the_worker_is_in_its_table() -> None:
    app = Celery("proj")
    Daemons(app)
    options = {option for parameter in app.user_options["worker"] for option in parameter.opts}
    documented = {name.split()[0] for name in rows(section(REFERENCE / "settings.md", "Options of the worker"))}

    assert len(options) > 2
    assert options == documented


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for number, code in enumerate(blocks(page, "python"), start=1):
        compile(code, f"{name_of(page)}, block {number}", "exec")
