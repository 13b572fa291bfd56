"""Send spawn tasks through Celery in a thread, so that a broker that does not answer cannot block the monitor."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from kombu.entity import Queue

from celery_daemons.wire import spawn_task

logger = logging.getLogger(__name__)

#: The most operations that wait for the broker. More are dropped: nodes read their assignments with each heartbeat.
_BACKLOG: Final = 10_000
#: Seconds between two checks of the backlog while it is flushed.
_FLUSH_INTERVAL: Final = 0.002


class Dispatcher:
    """Send messages in order and drop what the broker does not take.

    Spawn tasks only make assignments fast. A node that misses one finds its assignments with its next heartbeat.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._backlog: queue.Queue[Callable[[], None]] = queue.Queue(_BACKLOG)
        self._connection: Any = None
        self._failing = False
        #: The task queues that are kept because tasks wait in them, and were reported.
        self._kept: set[str] = set()

    def start(self) -> None:
        """Start the sending thread."""
        threading.Thread(target=self._run, name="celery-daemons-dispatch", daemon=True).start()

    def send(self, queue_name: str, task: spawn_task.SpawnTask) -> None:
        """Send a spawn task to a node's spawn queue; does nothing for a node that has none, which is named ""."""
        if not queue_name:
            return
        self._put(lambda: self._send(queue_name, task))

    def flush(self, *, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until the broker has taken everything."""
        deadline = time.monotonic() + timeout
        while self._backlog.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(_FLUSH_INTERVAL)

    def remove_queues(
        self, *, spawn_queue: str, task_queue: str, is_gone: Callable[[], bool], on_removed: Callable[[], object]
    ) -> None:
        """Delete the queues of a departed node; a task queue that is not empty is kept. An empty name is no queue.

        In the sending thread, ``is_gone`` is called first: nothing is deleted if the node has come back. ``on_removed``
        is called once neither queue is left.
        """
        self._put(lambda: self._remove_queues(spawn_queue, task_queue, is_gone, on_removed))

    def _put(self, operation: Callable[[], None]) -> None:
        try:
            self._backlog.put_nowait(operation)
        except queue.Full:
            logger.debug("dispatch: backlog full, dropping a message; the node will act at its next heartbeat")

    def _run(self) -> None:
        while True:
            operation = self._backlog.get()
            try:
                operation()
            except Exception as error:  # noqa: BLE001 - each transport has errors of its own
                # One warning per outage: what is lost here delays a start by a heartbeat at most.
                if not self._failing:
                    logger.warning(
                        "dispatch: the broker does not take spawn tasks (%r); nodes act at their next heartbeat", error
                    )
                self._failing = True
                self._drop_connection()
            else:
                self._failing = False
            finally:
                self._backlog.task_done()

    def _send(self, queue_name: str, task: spawn_task.SpawnTask) -> None:
        self._app.send_task(
            spawn_task.TASK,
            kwargs=task.encode(),
            queue=spawn_task.spawn_queue(queue_name),
            serializer="json",
            ignore_result=True,
            retry=False,
            producer=self._app.amqp.Producer(self._connected(), auto_declare=False),
        )

    def _remove_queues(
        self, spawn_queue: str, task_queue: str, is_gone: Callable[[], bool], on_removed: Callable[[], object]
    ) -> None:
        if not is_gone():
            return
        connection = self._connected()
        kept = False
        try:
            if spawn_queue:
                _delete(connection, spawn_task.spawn_queue(spawn_queue))
            if task_queue:
                kept = self._delete_task_queue(connection, spawn_task.task_queue(self._app, task_queue))
        finally:
            # The connection remembers what it has declared, and would not declare the queues of a returning node again.
            self._drop_connection()
        if not kept:
            self._kept.discard(task_queue)
            on_removed()

    def _delete_task_queue(self, connection: Any, queue: Queue) -> bool:
        """Delete a task queue unless tasks are waiting there; return whether the queue was kept."""
        try:
            # Passive only on AMQP: on a virtual transport, an empty queue may not exist, while its bindings do.
            waiting = queue(connection.default_channel).queue_declare(passive=_is_amqp(connection)).message_count
        except connection.channel_errors:
            return False  # There is no such queue.
        if not waiting:
            _delete(connection, queue, if_empty=True)
            return False
        if queue.name not in self._kept:
            self._kept.add(queue.name)
            logger.warning(
                "queue %s: its node is gone and %d tasks wait in it, keeping the queue; start a worker with `-Q %s` "
                "to do them, or purge the queue; it is deleted once it is empty",
                queue.name,
                waiting,
                queue.name,
            )
        return True

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()


def _delete(connection: Any, queue: Queue, *, if_empty: bool = False) -> None:
    """Delete a queue without consumers, and the exchange of that queue."""
    bound = queue(connection.default_channel)
    if not _is_amqp(connection):
        # A virtual transport deletes the bindings of a queue only after the channel has declared the queue. AMQP would
        # refuse a declaration that differs from the first one.
        bound.declare()
    bound.delete(if_unused=True, if_empty=if_empty)
    bound.exchange.delete()


def _is_amqp(connection: Any) -> bool:
    return bool(connection.transport.driver_type == "amqp")
