"""Mistakes planted in the product, which the model must notice."""

import inspect
from functools import cache
from hashlib import sha1
from textwrap import dedent

import pytest

from celery_daemons.node.supervision import supervisor
from celery_daemons.node.supervision.supervisor import Supervisor
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


def plant_in_supervisor(monkeypatch: pytest.MonkeyPatch, method: str, line: str, instead: str) -> None:
    """Replace a line of a method of the supervisor."""
    source = dedent(inspect.getsource(getattr(Supervisor, method)))
    assert line in source, f"Supervisor.{method} has no {line!r}: bring this test up to date"
    namespace = dict(vars(supervisor))
    exec(source.replace(line, instead), namespace)  # noqa: S102 - the product's own source, with one line changed
    monkeypatch.setattr(Supervisor, method, namespace[method])
