"""Sending spawn tasks through Celery, in a thread: a broker that hangs does not hang the monitor."""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from kombu.entity import Exchange, Queue

from celery_daemons.wire import spawn_task

logger = logging.getLogger(__name__)

#: The most messages that wait for the broker. More are dropped: each node catches up by its heartbeat.
_BACKLOG: Final = 10_000


class Dispatcher:
    """Sends in order, drops what the broker does not take."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._due: queue.Queue[Callable[[], None]] = queue.Queue(_BACKLOG)
        self._connection: Any = None
        self._failing = False

    def start(self) -> None:
        """Start the sending thread."""
        threading.Thread(target=self._run, name="celery-daemons-dispatch", daemon=True).start()

    def send(self, queue_name: str, task: spawn_task.SpawnTask) -> None:
        """Send a spawn task to a node's spawn queue."""
        self._put(lambda: self._send(queue_name, task))

    def flush(self, within: float) -> None:
        """Wait until the broker has taken everything, no longer than ``within`` seconds."""
        deadline = time.monotonic() + within
        while self._due.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.002)

    def sweep(self, spawn_queue: str, task_queue: str, done: Callable[[], object]) -> None:
        """Remove the queues of a node that is gone, its task queue only if that is empty; ``done`` once they are."""
        self._put(lambda: self._remove(spawn_queue, task_queue, done))

    def _put(self, item: Callable[[], None]) -> None:
        try:
            self._due.put_nowait(item)
        except queue.Full:
            logger.debug("dispatch: backlog full, a spawn task is left to the heartbeat")

    def _run(self) -> None:
        while True:
            act = self._due.get()
            try:
                act()
            except Exception as error:  # noqa: BLE001 - each transport has errors of its own
                # Spawn tasks only make it fast: what is lost here costs a heartbeat.
                if not self._failing:
                    logger.warning(
                        "dispatch: the broker does not take spawn tasks (%r); nodes go by their heartbeat", error
                    )
                self._failing = True
                self._drop_connection()
            else:
                self._failing = False
            finally:
                self._due.task_done()

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

    def _remove(self, spawn_queue: str, task_queue: str, done: Callable[[], object]) -> None:
        channel = self._connected().default_channel
        # As Celery declares a queue that it makes up for a name.
        mailbox = Queue(task_queue, Exchange(task_queue, type="direct"), routing_key=task_queue)
        for queue_, if_empty in ((spawn_task.spawn_queue(spawn_queue), False), (mailbox, True)):
            bound = queue_.bind(channel)
            # Declared first: a virtual transport only deletes the bindings of queues that it knows.
            left = bound.queue_declare()
            bound.declare()
            if if_empty and left.message_count:
                logger.warning("queue %s: %d tasks wait for a node that is gone", bound.name, left.message_count)
                continue
            bound.delete()
            bound.exchange.delete()
        # It remembers what it has declared, and would not do so again for a node that comes back.
        self._drop_connection()
        done()

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()
