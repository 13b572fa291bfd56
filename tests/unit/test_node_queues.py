"""No failure of the broker, whichever call it hits, leaves the consumers of a node's queues as an exception."""

import errno
import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from kombu.exceptions import ChannelError
from kombu.transport.virtual import Channel

from celery_daemons.wire.messages import Campaign
from celery_daemons.wire.spawn_task import spawn_queue, spawn_queue_name, task_queue_name
from celery_daemons.worker.node_queues import NodeQueuesConsumer


class FakeAgent:
    """What the consumer of the queues calls of an agent's process."""

    node = "w1@here"

    def __init__(self) -> None:
        self.queues: tuple[str, str] | None = None
        self.sent: list[Any] = []

    def set_queues(self, *, queue: str, spawn_queue: str) -> None:
        self.queues = (queue, spawn_queue)

    def send(self, message: Any) -> None:
        self.sent.append(message)


class Timer:
    """Remembers what it is asked to call."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, Callable[[], None]]] = []

    def call_after(self, seconds: float, function: Callable[[], None]) -> Any:
        self.entries.append((seconds, function))
        return SimpleNamespace(cancel=lambda: None)


@pytest.fixture
def worker() -> Iterator[Any]:
    """A worker's consumer with a broker in memory, which consumes the queue ``own``."""
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = "own"
    with Connection("memory://") as connection:
        yield SimpleNamespace(
            app=app,
            hostname="w1@here",
            connection=connection,
            task_consumer=app.amqp.TaskConsumer(connection),
            timer=Timer(),
            controller=SimpleNamespace(daemons_agent=FakeAgent()),
        )


TASKS = task_queue_name("ns", "w1@here")
SPAWNS = spawn_queue_name("ns", "w1@here")
BROKER_ERRORS = [
    OSError(errno.EMFILE, "Too many open files"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    ChannelError("PRECONDITION_FAILED"),
    Exception("UndefinedQueueException"),
]


@pytest.mark.parametrize("error", BROKER_ERRORS, ids=repr)
@pytest.mark.parametrize("call", ["queue_declare", "exchange_declare", "queue_bind", "close"])
def test_a_broker_that_refuses_the_queues_of_the_node_leaves_the_workers_own_queue_alone(
    worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, error: Exception
) -> None:
    """Attacks: the package could stop the worker's own tasks."""
    # Given
    queues = NodeQueuesConsumer(worker, namespace="ns")
    with monkeypatch.context() as broken:
        # In memory, a queue is bound when it is declared.
        target = "_queue_bind" if call == "queue_bind" else call
        broken.setattr(Channel, target, lambda *args, **kwargs: (_ for _ in ()).throw(error), raising=False)

        # When
        queues.start()
        queues.stop(delete=True)

    # Then
    assert [queue.name for queue in worker.task_consumer.queues][:1] == ["own"]
    if worker.controller.daemons_agent.queues == ("", ""):
        assert TASKS not in [queue.name for queue in worker.task_consumer.queues]
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert any("addresses on this node name no queue" in message for message in messages)
        assert any("start up to a heartbeat later" in message for message in messages)
        assert worker.timer.entries, "they are tried again"


def test_queues_that_were_refused_are_consumed_once_the_broker_allows_them(
    worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a broker that refuses
    queues = NodeQueuesConsumer(worker, namespace="ns")
    with monkeypatch.context() as broken:
        broken.setattr(Channel, "queue_declare", lambda *args, **kwargs: (_ for _ in ()).throw(Exception("no")))
        queues.start()
        ((_, again),) = worker.timer.entries
        again()
        assert worker.controller.daemons_agent.queues == ("", "")
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2, "each is logged once"

    # When
    worker.timer.entries[-1][1]()

    # Then
    assert worker.controller.daemons_agent.queues == (TASKS, SPAWNS)
    assert worker.task_consumer.consuming_from(TASKS)
    assert len(worker.timer.entries) == 2


def test_a_broker_that_refuses_to_deliver_causes_exactly_one_reconnection(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An AMQP broker closes the channel of the worker's own consumers then; only a new connection restores them."""
    # Given
    queues = NodeQueuesConsumer(worker, namespace="ns")
    monkeypatch.setattr(worker.task_consumer, "consume", lambda: (_ for _ in ()).throw(ChannelError("ACCESS_REFUSED")))

    # When, then
    with pytest.raises(ConnectionResetError, match="may not read the queue"):
        queues.start()
    queues.stop(delete=False)
    queues.start()
    assert worker.controller.daemons_agent.queues == ("", SPAWNS)


@pytest.mark.parametrize("error", BROKER_ERRORS, ids=repr)
@pytest.mark.parametrize("call", ["ack", "reject", "decode"])
@pytest.mark.parametrize("good", [True, False])
def test_a_message_whose_handling_fails_does_not_reach_the_worker(
    worker: Any, error: Exception, call: str, good: bool
) -> None:
    # Given
    queues = NodeQueuesConsumer(worker, namespace="ns")

    def fail() -> Any:
        raise error

    message = SimpleNamespace(
        headers={"task": "celery_daemons.spawn" if good else "other"},
        ack=lambda: None,
        reject=lambda: None,
        decode=lambda: ([], {"version": 1, "node": "w1@here", "incarnation": "i", "epoch": 1, "campaign": True}, {}),
    )
    setattr(message, call, fail)

    # When, then it does not raise
    queues._on_message(message)


def test_a_spawn_task_of_task_protocol_1_is_read(worker: Any) -> None:
    # Given an app that sends in the old protocol
    worker.app.conf.task_protocol = 1
    queues = NodeQueuesConsumer(worker, namespace="ns")
    queues.start()

    # When
    worker.app.send_task(
        "celery_daemons.spawn",
        kwargs={"version": 1, "node": "w1@here", "incarnation": "i", "epoch": 1, "campaign": True},
        queue=spawn_queue(SPAWNS),
        serializer="json",
    )
    worker.connection.drain_events(timeout=5)

    # Then
    assert worker.controller.daemons_agent.sent == [Campaign()]
