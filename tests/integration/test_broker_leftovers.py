"""Queues of a departed node are removed from the broker unless tasks still wait in them."""

import threading
from collections.abc import Iterator

import pytest
from celery import Celery

from celery_daemons.domain.names import DaemonName, Incarnation, NodeName, Token
from celery_daemons.domain.runs import Assignment
from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.wire import spawn_task
from celery_daemons.wire.spawn_task import SpawnTask
from tests.support.servers import Server
from tests.support.waiting import wait_until

NODE = "gone@test"


@pytest.fixture
def app(valkey: Server, namespace: str) -> Iterator[Celery]:
    with Celery(namespace, broker=valkey.url) as app:
        app.conf.task_default_queue = namespace
        yield app


def keys_of(server: Server, namespace: str) -> set[str]:
    return set(server.client().scan_iter(f"*{spawn_task.task_queue_name(namespace, NODE)}*"))


def some_spawn_task() -> SpawnTask:
    assignment = Assignment(DaemonName("x"), Token(1))
    return SpawnTask(node=NodeName(NODE), incarnation=Incarnation("i"), epoch=1, generation=1, assigned=[assignment])


def test_the_queues_of_a_departed_node_are_removed_and_declared_again_on_its_return(
    app: Celery, valkey: Server, namespace: str
) -> None:
    """Attacks invariant 6: what a dead node leaves in the broker is removed; leftovers would grow with each restart."""
    # Given a node's queues, with a spawn task that was never consumed
    spawns = spawn_task.spawn_queue_name(namespace, NODE)
    mailbox = spawn_task.task_queue_name(namespace, NODE)
    dispatcher = Dispatcher(app)
    dispatcher.start()
    dispatcher.send(spawns, some_spawn_task())
    app.send_task("any", queue=mailbox)
    dispatcher.flush(timeout=5.0)
    with app.connection_for_read() as connection:
        assert connection.default_channel.queue_purge(mailbox) == 1
    assert keys_of(valkey, namespace)

    # When
    done = threading.Event()
    dispatcher.remove_queues(spawn_queue=spawns, task_queue=mailbox, is_gone=lambda: True, on_removed=done.set)

    # Then
    assert done.wait(5.0)
    assert keys_of(valkey, namespace) == set()

    # When the node comes back
    dispatcher.send(spawns, some_spawn_task())

    # Then its spawn tasks find their queue
    wait_until(lambda: valkey.client().llen(spawns) == 1, within=5.0, because="the queue is declared again")


def test_tasks_that_wait_for_a_departed_node_are_kept(app: Celery, valkey: Server, namespace: str) -> None:
    # Given
    spawns = spawn_task.spawn_queue_name(namespace, NODE)
    mailbox = spawn_task.task_queue_name(namespace, NODE)
    app.send_task("any", queue=mailbox)
    dispatcher = Dispatcher(app)
    dispatcher.start()

    # When
    done = threading.Event()
    dispatcher.remove_queues(spawn_queue=spawns, task_queue=mailbox, is_gone=lambda: True, on_removed=done.set)
    dispatcher.flush(timeout=5.0)

    # Then the queue is not forgotten either: it is removed once it is empty
    assert not done.is_set()
    assert valkey.client().llen(mailbox) == 1
