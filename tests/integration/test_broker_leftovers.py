"""What a node leaves in the broker is removed once it has been gone for a while."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_daemons.monitor.dispatch import Dispatcher
from celery_daemons.wire import spawn_task
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


def some_spawn_task() -> dict[str, Any]:
    return spawn_task.payload(node=NODE, incarnation="i", epoch=1, generation=1, assigned=[("x", "1")], recalled=[])


def test_queues_of_a_node_that_is_gone_are_removed_and_come_back_with_it(
    app: Celery, valkey: Server, namespace: str
) -> None:
    """Attacks: at some sites dead workers had left thousands of lists in Redis."""
    # Given a node's queues, with a spawn task that nobody took
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
    dispatcher.remove_queues(spawn_queue=spawns, task_queue=mailbox, on_removed=done.set)

    # Then
    assert done.wait(5.0)
    assert keys_of(valkey, namespace) == set()

    # When the node comes back
    dispatcher.send(spawns, some_spawn_task())

    # Then its spawn tasks find their queue
    wait_until(lambda: valkey.client().llen(spawns) == 1, within=5.0, because="the queue is declared anew")


def test_tasks_that_wait_for_a_node_that_is_gone_are_kept(app: Celery, valkey: Server, namespace: str) -> None:
    # Given
    spawns = spawn_task.spawn_queue_name(namespace, NODE)
    mailbox = spawn_task.task_queue_name(namespace, NODE)
    app.send_task("any", queue=mailbox)
    dispatcher = Dispatcher(app)
    dispatcher.start()

    # When
    done = threading.Event()
    dispatcher.remove_queues(spawn_queue=spawns, task_queue=mailbox, on_removed=done.set)

    # Then
    assert done.wait(5.0)
    assert valkey.client().llen(mailbox) == 1
