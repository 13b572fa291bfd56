"""The person or process that asks for a change."""

import os
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_daemons import ConfigurationError, acting_as
from celery_daemons.client import actor
from celery_daemons.client.actor import LONGEST, current_actor, user_and_process


def test_the_actor_of_a_block_holds_until_its_end_and_blocks_nest() -> None:
    with acting_as("web:alice"):
        with acting_as("web:bob"):
            assert current_actor() == "web:bob"
        assert current_actor() == "web:alice"
    assert current_actor() == f"api:{user_and_process()}"


def test_a_call_in_a_task_is_the_tasks() -> None:
    app = Celery("proj", set_as_current=False)
    task: Any = app.task(current_actor, name="proj.cleanup")

    assert task.apply(task_id="42").get() == "task:proj.cleanup[42]"


def test_a_long_actor_is_cut_and_cannot_drive_a_terminal() -> None:
    with acting_as("web:\x1b[2J" + "x" * 500):
        found = current_actor()

    assert len(found) == LONGEST
    assert found.startswith("web:\N{REPLACEMENT CHARACTER}[2Jxx")
    assert found.endswith("…")


def test_an_actor_that_utf8_cannot_encode_is_replaced() -> None:
    with acting_as("web:\udcff"):
        assert current_actor().encode() == "web:\N{REPLACEMENT CHARACTER}".encode()


@pytest.mark.parametrize("wrong", ["", "  ", None, 7])
def test_an_empty_actor_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="give a text such as"), acting_as(wrong):
        pass


def test_a_user_without_a_name_is_named_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks: a container that runs under a random user, as OpenShift starts it."""

    def fail() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(actor, "getpass", SimpleNamespace(getuser=fail))

    assert user_and_process().startswith(f"{os.getuid()}@")
    assert user_and_process().endswith(f":{os.getpid()}")
