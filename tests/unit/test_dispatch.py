"""The queues of departed nodes are removed from the broker, and only those."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.wire import spawn_task

NODE = spawn_task.task_queue_name("ns", "w1@here")
SPAWNS = spawn_task.spawn_queue_name("ns", "w1@here")


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("proj", broker="memory://", set_as_current=False)
    yield app
    app.close()


@pytest.fixture
def dispatcher(app: Celery) -> Dispatcher:
    dispatcher = Dispatcher(app)
    dispatcher.start()
    return dispatcher


def declared(app: Celery) -> dict[str, int]:
    """The queues of the node that the broker has, each with the number of its messages."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        # The broker in memory creates a queue when it is asked for its size; bindings are not created so.
        return {name: channel._size(name) for name in (NODE, SPAWNS) if channel.state.has_binding(name, name, name)}


def declare(app: Celery) -> None:
    """Let the node's worker declare its queues."""
    with app.connection_for_write() as connection:
        spawn_task.task_queue(app, NODE)(connection.default_channel).declare()
        spawn_task.spawn_queue(SPAWNS)(connection.default_channel).declare()


def removed(dispatcher: Dispatcher, *, is_gone: bool = True, **queues: str) -> list[str]:
    """Ask for the removal of both queues, and return what was called."""
    calls: list[str] = []
    given = {"spawn_queue": SPAWNS, "task_queue": NODE, **queues}
    dispatcher.remove_queues(**given, is_gone=lambda: is_gone, on_removed=lambda: calls.append("removed"))
    dispatcher.flush(timeout=10)
    return calls


@pytest.mark.parametrize("priority", [None, 5])
def test_the_queues_of_a_node_that_is_gone_are_removed_whatever_the_apps_queue_settings(
    app: Celery, dispatcher: Dispatcher, priority: int | None
) -> None:
    app.conf.task_queue_max_priority = priority
    declare(app)

    assert removed(dispatcher) == ["removed"]
    assert declared(app) == {}


def test_the_queues_of_a_node_that_has_come_back_are_kept(app: Celery, dispatcher: Dispatcher) -> None:
    declare(app)

    assert removed(dispatcher, is_gone=False) == []
    assert set(declared(app)) == {NODE, SPAWNS}
    removed(dispatcher)


def test_a_task_queue_that_is_kept_because_tasks_wait_in_it_is_removed_once_it_is_empty(
    app: Celery, dispatcher: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a task for a node that is gone, and a log level that no earlier test has changed
    caplog.set_level(logging.WARNING)
    declare(app)
    app.send_task("proj.visit", queue=spawn_task.task_queue(app, NODE))

    # When, then it is kept, which is reported once
    assert removed(dispatcher) == []
    assert removed(dispatcher) == []
    assert declared(app) == {NODE: 1}
    (kept,) = (text for text in caplog.messages if "keeping the queue" in text)
    assert f"`-Q {NODE}`" in kept

    # When the task is gone, then so is the queue
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge(NODE)
    assert removed(dispatcher) == ["removed"]
    assert declared(app) == {}


def test_a_node_without_queues_is_removed_without_asking_the_broker(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("asked the broker")

    monkeypatch.setattr(Connection, "default_channel", property(refuse))

    assert removed(dispatcher, spawn_queue="", task_queue="") == ["removed"]
    dispatcher.send("", spawn_task.SpawnTask(node="w1@here", incarnation="i", epoch=1))  # type: ignore[arg-type]
    dispatcher.flush(timeout=10)
