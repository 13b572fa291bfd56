"""The documentation is sound: links lead somewhere, and its code names what exists."""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_daemons import AddressBook, DaemonContext, Daemons
from celery_daemons.aio import Aio
from celery_daemons.domain.options import LauncherOptions
from tests.support.pages import DOCS, PAGES, README, anchors, blocks, links, name_of, prose

pytestmark = pytest.mark.skipif(not README.exists(), reason="the tests of a wheel run without the documentation")


def test_the_documentation_is_found() -> None:
    kinds = {page.parent.name for page in DOCS.rglob("*.md")}

    assert kinds >= {"tutorial", "how-to", "reference", "explanation"}
    assert README in PAGES
    assert len(list(links())) > 50


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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_in_the_documentation_compiles(page: Path) -> None:
    for number, code in enumerate(blocks(page, "python"), start=1):
        compile(code, f"{name_of(page)}, block {number}", "exec")


def calls(page: Path) -> Iterator[ast.Call]:
    """Yield the calls in a page's Python blocks."""
    for code in blocks(page, "python"):
        yield from (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))


def bind(function: Any, call: ast.Call) -> None:
    """Bind a call to the signature of a method. Raises TypeError."""
    arguments = [None, *call.args]
    inspect.signature(function).bind(*arguments, **{word.arg: None for word in call.keywords if word.arg})


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_calls_in_the_documentation_fit_the_signatures(page: Path) -> None:
    receivers = {"daemons": Daemons, "daemons.aio": Aio, "book": AddressBook, "ctx": DaemonContext}

    for call in calls(page):
        if not isinstance(call.func, ast.Attribute):
            continue
        receiver = receivers.get(ast.unparse(call.func.value))
        if receiver is not None:
            bind(getattr(receiver, call.func.attr), call)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_of_launchers_in_the_documentation_exist(page: Path) -> None:
    given = {
        word.arg
        for call in calls(page)
        if ast.unparse(call.func) in {"daemons.launcher", "Launcher"}
        for word in call.keywords
    }

    assert given <= set(LauncherOptions.__slots__)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_documentation_exist(page: Path) -> None:
    from celery_daemons.cli import daemons

    named = set(re.findall(r"celery -A \S+ daemons ([a-z]+)", page.read_text()))

    assert named <= set(daemons.list_commands(None))  # type: ignore[arg-type]
