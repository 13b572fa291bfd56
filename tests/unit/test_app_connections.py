"""Closing Django's connections in a thread that ends."""

import logging
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.forkserver.app_connections import close_django


def raises() -> None:
    """Fail as a driver may."""
    raise OSError("the server is gone")


def test_connections_that_cannot_be_closed_are_logged_and_the_others_are_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Attacks: the thread of a daemon that ends here would never report the end."""
    # Given
    closed: list[str] = []

    def database(alias: str, close: Callable[[], None]) -> Any:
        return SimpleNamespace(alias=alias, close=close)

    opened = [database("broken", raises), database("default", lambda: closed.append("default"))]
    connections = SimpleNamespace(all=lambda *, initialized_only: opened if initialized_only else [])
    monkeypatch.setitem(sys.modules, "django.db", SimpleNamespace(connections=connections))
    monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=SimpleNamespace(configured=True)))
    monkeypatch.setitem(sys.modules, "django.core.cache", SimpleNamespace(close_caches=raises))

    # When
    with caplog.at_level(logging.WARNING):
        close_django()

    # Then
    assert closed == ["default"]
    assert [record.getMessage() for record in caplog.records] == [
        "connection of Django's database broken could not be closed: OSError('the server is gone')",
        "connection of Django's caches could not be closed: OSError('the server is gone')",
    ]
