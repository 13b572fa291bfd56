"""Errors that commands report before they query Redis: one line, exit status 1."""

from types import SimpleNamespace

import pytest
from celery import Celery
from click.testing import CliRunner

from celery_daemons import Daemons
from celery_daemons.cli import daemons

#: No server listens there: a command that queries Redis first fails with another message.
NOWHERE = "redis://127.0.0.1:1/0"


def refusal(*arguments: str, **settings: object) -> str:
    """Run a command on an app with one launcher, ``tick``, and return the line by which it refuses."""
    app = Celery("proj", broker=NOWHERE, set_as_current=False)
    Daemons(app, **settings).launcher("tick")(tick)
    done = CliRunner().invoke(daemons, arguments, obj=SimpleNamespace(app=app, no_color=True))
    assert done.exit_code == 1, done.output
    (line,) = done.output.splitlines()
    return line


async def tick(ctx: object) -> None:
    """Do nothing; no test runs this daemon."""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["locate", "not a name"], "daemon name 'not a name' is not a valid name"),
        (["drain", "not a node"], "node name 'not a node' is not a valid name"),
        (["spawn", "tock", "a"], "no launcher 'tock' is registered (registered: tick)"),
        (["rescan", "tock"], "no launcher 'tock' is registered (registered: tick)"),
        (["rescan", "tick"], "launcher tick has no recovery scanner"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_invalid_or_unknown_name_is_refused(arguments: list[str], complaint: str) -> None:
    assert complaint in refusal(*arguments)


def test_a_wrong_setting_is_reported_with_its_value_and_the_rule() -> None:
    line = refusal("status", lease_ttl=1.0)

    assert "daemons_lease_ttl: 1.0 must be at least 3 × daemons_heartbeat_interval" in line
