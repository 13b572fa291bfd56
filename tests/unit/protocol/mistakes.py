"""Insert defects into the product, which the model must detect."""

import inspect
from functools import cache
from hashlib import sha1
from importlib import import_module
from textwrap import dedent

import pytest

from celery_daemons.store import script


def plant_in_script(monkeypatch: pytest.MonkeyPatch, verb: str, line: str, instead: str) -> None:
    """Replace a line of the script of a verb, or of every script ("any")."""
    real = script.script.__wrapped__

    @cache
    def mistaken(name: str) -> script.Script:
        found = real(name)
        if verb not in ("any", name):
            return found
        assert line in found.source, f"{name}.lua has no {line!r}: bring this test up to date"
        source = found.source.replace(line, instead)
        return script.Script(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())

    monkeypatch.setattr(script, "script", mistaken)


def plant_in_method(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, line: str, instead: str) -> None:
    """Replace a line of a method of a class."""
    source = dedent(inspect.getsource(getattr(owner, method)))
    assert line in source, f"{owner.__name__}.{method} has no {line!r}: bring this test up to date"
    namespace = dict(vars(import_module(owner.__module__)))
    exec(source.replace(line, instead), namespace)  # noqa: S102 - the product's own source, with one line changed
    monkeypatch.setattr(owner, method, namespace[method])
