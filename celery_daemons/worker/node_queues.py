"""The worker's consumers of its node's two queues: the task queue, and the spawn queue of the monitor's messages.

Daemons need neither queue. If a broker refuses one, the node works without it, and the worker continues with its tasks.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from kombu.messaging import Consumer

from celery_daemons.wire.messages import AssignmentsChanged, Campaign, Rejected
from celery_daemons.wire.spawn_task import (
    NotASpawnTask,
    SpawnTask,
    spawn_queue,
    spawn_queue_name,
    task_queue,
    task_queue_name,
)
from celery_daemons.worker.agent_process import AgentProcess
from celery_daemons.worker.guard import Guard

logger = logging.getLogger(__name__)

#: Seconds between two reports of rejected messages: a flood of bad messages must not flood the log.
_REPORT_EVERY: Final = 5.0
#: The least seconds before another attempt to consume a queue.
_LEAST_PAUSE: Final = 1.0


class NodeQueuesConsumer:
    """Consumes the queues of a node over each connection that the worker opens."""

    def __init__(self, consumer: Any, *, namespace: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._consumer = consumer
        self._agent: AgentProcess = consumer.controller.daemons_agent
        self._clock = clock
        node = self._agent.node
        self._task_queue = task_queue_name(namespace, node)
        self._spawn_queue = spawn_queue_name(namespace, node)
        self._spawns: Any = None
        self._retry: Any = None
        #: The broker has refused to deliver from the task queue, and has closed a channel with that: not tried again.
        self._refused = False
        self._rejected = 0
        self._report_at = 0.0
        allow = "allow the worker to create and read the queue, or create it beforehand"
        self._task_guard = Guard(
            f"node {node}: consuming its task queue {self._task_queue}",
            remedy=f"daemons and the worker's tasks run, but addresses on this node name no queue; {allow}",
            expected=Exception,
        )
        self._spawn_guard = Guard(
            f"node {node}: consuming its spawn queue {self._spawn_queue}",
            remedy=f"daemons run, but start up to a heartbeat later, when the node reads its assignments; {allow}",
            expected=Exception,
        )
        self._message_guard = Guard(
            f"node {node}: handling a spawn task", remedy="the node reads its assignments with its next heartbeat"
        )
        self._stop_guard = Guard(
            f"node {node}: ending the consumer of its spawn queue",
            remedy="the monitor deletes the queue once the node has been gone for a while",
            expected=Exception,
        )

    def start(self) -> None:
        """Consume both queues; those that fail are tried again later."""
        self._retry = None
        refused_before = self._refused
        tasks = self._task_guard.call(self._consume_tasks) is True
        spawns = self._spawn_guard.call(self._consume_spawns) is True
        self._agent.set_queues(queue=self._task_queue if tasks else "", spawn_queue=self._spawn_queue if spawns else "")
        if self._refused and not refused_before:
            # The consumers of the worker's own queues went with the channel. Celery reconnects after this error, and
            # the next attempt leaves the task queue alone.
            raise ConnectionResetError(
                f"the broker closed the worker's channel because it may not read the queue {self._task_queue}"
            )
        if not tasks or not spawns:
            pause = max(_LEAST_PAUSE, self._task_guard.pause, self._spawn_guard.pause)
            self._retry = self._stop_guard.call(self._consumer.timer.call_after, pause, self.start)

    def stop(self, *, delete: bool) -> None:
        """Stop consuming, and delete the spawn queue if asked to."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._spawns is not None:
            spawns, self._spawns = self._spawns, None
            if delete:
                self._stop_guard.call(_delete, spawns)
            # Without a connection, both fail, and neither is needed.
            with contextlib.suppress(Exception):
                spawns.cancel()
            with contextlib.suppress(Exception):
                spawns.channel.close()

    def _consume_tasks(self) -> bool:
        tasks = self._consumer.task_consumer
        if tasks.consuming_from(self._task_queue):
            return True
        if self._refused:
            raise PermissionError("the broker refused to deliver from it")
        queue = task_queue(self._consumer.app, self._task_queue)
        # First on a channel of its own: a broker closes the channel on which it refuses a declaration, and the other
        # one is the channel of the worker's own tasks.
        channel = self._consumer.connection.channel()
        try:
            queue(channel).declare()
        finally:
            with contextlib.suppress(Exception):
                channel.close()
        try:
            tasks.add_queue(queue)
            tasks.consume()
        except self._consumer.connection.channel_errors:
            self._refused = True
            raise
        return True

    def _consume_spawns(self) -> bool:
        if self._spawns is None:
            channel = self._consumer.connection.channel()
            try:
                # Raw messages: no message, however malformed, may raise in the worker.
                spawns = Consumer(
                    channel,
                    queues=[spawn_queue(self._spawn_queue)],
                    on_message=self._on_message,
                    accept=["json"],
                    tag_prefix="daemons",
                )
                spawns.consume()
            except BaseException:
                with contextlib.suppress(Exception):
                    channel.close()
                raise
            self._spawns = spawns
        return True

    def _on_message(self, message: Any) -> None:
        self._message_guard.call(self._handle, message)

    def _handle(self, message: Any) -> None:
        try:
            task = SpawnTask.decode(message, node=self._agent.node)
        except NotASpawnTask as error:
            self._reject(str(error))
            message.reject()
        else:
            # Acknowledged at once: claims decide which node runs a daemon, so a redelivered task would only be refused.
            message.ack()
            if task.campaign:
                self._agent.send(Campaign())
            else:
                self._agent.send(AssignmentsChanged(task.incarnation, task.generation, task.assigned, task.recalled))

    def _reject(self, reason: str) -> None:
        self._rejected += 1
        now = self._clock()
        if now >= self._report_at:
            logger.warning("node %s: %d messages rejected: %s", self._agent.node, self._rejected, reason)
            self._agent.send(Rejected(self._rejected, reason))
            self._rejected = 0
            self._report_at = now + _REPORT_EVERY


def _delete(spawns: Any) -> None:
    for queue in spawns.queues:
        queue.delete()
