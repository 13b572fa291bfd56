"""Sending spawn tasks through Celery, in a thread: a broker that hangs does not hang the monitor."""

import logging
import queue
import threading
import time
from typing import Any, Final

from celery_daemons.process import spawn_task

logger = logging.getLogger(__name__)

#: The most messages that wait for the broker. More are dropped: each node catches up by its heartbeat.
_BACKLOG: Final = 10_000


class Dispatcher:
    """Sends in order, drops what the broker does not take."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._due: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue(_BACKLOG)
        self._failing = False

    def start(self) -> None:
        """Start the sending thread."""
        threading.Thread(target=self._run, name="celery-daemons-dispatch", daemon=True).start()

    def send(self, queue_name: str, payload: dict[str, Any]) -> None:
        """Send a spawn task to a node's spawn queue."""
        self._put((queue_name, payload))

    def flush(self, within: float) -> None:
        """Wait until the broker has taken everything, no longer than ``within`` seconds."""
        deadline = time.monotonic() + within
        while self._due.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(0.002)

    def sweep(self, queue_name: str) -> None:
        """Remove the spawn queue of a node that is gone."""
        self._put((queue_name, None))

    def _put(self, item: tuple[str, dict[str, Any] | None]) -> None:
        try:
            self._due.put_nowait(item)
        except queue.Full:
            logger.debug("dispatch: backlog full, a spawn task is left to the heartbeat")

    def _run(self) -> None:
        while True:
            queue_name, payload = self._due.get()
            try:
                if payload is None:
                    self._remove(queue_name)
                else:
                    self._send(queue_name, payload)
            except Exception as error:  # noqa: BLE001 - each transport has errors of its own
                # Spawn tasks only make it fast: what is lost here costs a heartbeat.
                if not self._failing:
                    logger.warning(
                        "dispatch: the broker does not take spawn tasks (%r); nodes go by their heartbeat", error
                    )
                self._failing = True
            else:
                self._failing = False
            finally:
                self._due.task_done()

    def _send(self, queue_name: str, payload: dict[str, Any]) -> None:
        self._app.send_task(
            spawn_task.TASK,
            kwargs=payload,
            queue=spawn_task.spawn_queue(queue_name),
            serializer="json",
            ignore_result=True,
            retry=False,
        )

    def _remove(self, queue_name: str) -> None:
        with self._app.connection_for_write() as connection:
            bound = spawn_task.spawn_queue(queue_name).bind(connection.default_channel)
            # Declared first: a virtual transport only deletes the bindings of queues that it knows.
            bound.declare()
            bound.delete()
