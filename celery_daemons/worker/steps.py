"""Celery boot steps: the agent lives as long as the worker, the spawn queue's consumer as long as a connection."""

import logging
import time
from typing import Any, Final

from celery import bootsteps
from celery.utils.nodenames import node_format
from celery.worker import state
from kombu.common import ignore_errors
from kombu.messaging import Consumer

from celery_daemons.launcher import daemons_of_app
from celery_daemons.settings import Settings
from celery_daemons.wire.messages import AssignmentsChanged, Campaign, Rejected
from celery_daemons.wire.spawn_task import (
    NotASpawnTask,
    SpawnTask,
    spawn_queue,
    spawn_queue_name,
    task_queue_name,
)
from celery_daemons.worker.agent_process import AgentProcess
from celery_daemons.worker.boot import boot_for

logger = logging.getLogger(__name__)

#: Seconds between two checks of the agent: a dead agent is replaced at most this much late.
_AGENT_CHECK: Final = 0.25
#: Seconds of the drain time-out that the agent has for its own exit after it has handed over its daemons.
_AGENT_EXIT_MARGIN: Final = 1.0
#: Seconds between two reports of rejected messages: a flood of bad messages must not flood the log.
_REPORT_EVERY: Final = 5.0


def settings_of(app: Any) -> Settings:
    """Return the complete, validated settings of the app's Daemons."""
    return daemons_of_app(app).settings


def _expanded(logfile: Any, node: str) -> str | None:
    """Fill in ``%n`` and the like in a worker's ``--logfile``; ``%i`` and ``%I``, for pool processes, become empty."""
    return node_format(logfile, node, i="", I="") if isinstance(logfile, str) else None


def _shutting_down() -> bool:
    """Return whether the worker is stopping: Celery stores an exit status, which may be 0, or ``None`` or ``False``."""
    return any(status is not None and status is not False for status in (state.should_stop, state.should_terminate))


class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the agent, replaces an agent that has died, and drains the agent while the worker shuts down."""

    label = "Daemons"
    requires = ("celery.worker.components:Timer", "celery.worker.components:Hub")

    def __init__(
        self,
        worker: Any,
        no_daemons: bool = False,
        daemon_labels: str | None = None,
        daemon_weight: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.enabled = not no_daemons
        self._labels = daemon_labels
        self._weight = daemon_weight
        self._drain_timeout = 0.0
        self._drain_until = 0.0
        self._timer_entry: Any = None
        worker.daemons_agent = None

    def create(self, worker: Any) -> None:
        """Validate settings and app. An error here keeps the worker from starting and names the reason."""
        options = {"node_labels": self._labels, "node_weight": self._weight}
        settings = daemons_of_app(worker.app).settings_with(**options)
        boot = boot_for(
            worker.app,
            settings,
            node=worker.hostname,
            loglevel=worker.loglevel,
            logfile=_expanded(worker.logfile, worker.hostname),
        )
        self._drain_timeout = settings.drain_timeout
        worker.daemons_agent = AgentProcess(boot)

    def start(self, worker: Any) -> None:
        """Start the agent."""
        worker.daemons_agent.start()
        self._timer_entry = worker.timer.call_repeatedly(_AGENT_CHECK, self._keep_agent_alive, (worker.daemons_agent,))

    def _keep_agent_alive(self, agent: AgentProcess) -> None:
        # A service manager signals the agent as well as the worker. The worker must not start another agent then,
        # even if its own loop, which may be waiting for the broker, acts on the signal only seconds later.
        if not _shutting_down():
            agent.keep_alive()

    def close(self, worker: Any) -> None:
        """Start the drain when the shutdown starts, so that daemons move while the pool finishes tasks."""
        if self._timer_entry is not None:
            self._timer_entry.cancel()
        if worker.daemons_agent is not None:
            self._drain_until = time.monotonic() + self._drain_timeout
            worker.daemons_agent.drain(max(0.0, self._drain_timeout - _AGENT_EXIT_MARGIN))

    def stop(self, worker: Any) -> None:
        """Wait for the drain until the drain time-out, and kill the agent after that."""
        if worker.daemons_agent is not None and not worker.daemons_agent.wait(self._drain_until - time.monotonic()):
            logger.warning("node %s: not drained within the drain time-out, agent killed", worker.hostname)

    terminate = stop


class SpawnStep(bootsteps.ConsumerStep):  # type: ignore[misc]
    """Consumes the node's spawn queue on a separate channel, so that a full pool does not delay spawn tasks."""

    label = "DaemonSpawns"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self._rejected = 0
        self._report_at = 0.0

    def include_if(self, consumer: Any) -> bool:
        """Return whether the worker has an agent."""
        return consumer.controller.daemons_agent is not None

    def start(self, consumer: Any) -> None:
        """Consume the spawn queue, and add the node's task queue to the queues of the worker."""
        self._agent: AgentProcess = consumer.controller.daemons_agent
        self._namespace = settings_of(consumer.app).namespace
        consumer.add_task_queue(task_queue_name(self._namespace, consumer.hostname))
        super().start(consumer)

    def stop(self, consumer: Any) -> None:
        """Stop consuming. A worker that exits, unlike a worker that loses the broker, deletes the spawn queue."""
        if consumer.blueprint.state == bootsteps.CLOSE:
            for spawn_consumer in self.consumers or ():
                ignore_errors(consumer.connection, spawn_consumer.cancel)
                for queue in spawn_consumer.queues:
                    ignore_errors(consumer.connection, queue.delete)
        super().stop(consumer)

    def get_consumers(self, channel: Any) -> list[Consumer]:
        """Return a consumer of raw messages: no message, however malformed, may raise in the worker."""
        queue = spawn_queue(spawn_queue_name(self._namespace, self._agent.node))
        return [Consumer(channel, queues=[queue], on_message=self._on_message, accept=["json"], tag_prefix="daemons")]

    def _on_message(self, message: Any) -> None:
        try:
            task = SpawnTask.decode(message, node=self._agent.node)
        except NotASpawnTask as error:
            message.reject()
            self._reject(str(error))
        else:
            # Acknowledged at once: claims decide which node runs a daemon, so a redelivered task would only be refused.
            message.ack()
            if task.campaign:
                self._agent.send(Campaign())
            else:
                self._agent.send(AssignmentsChanged(task.incarnation, task.generation, task.assigned, task.recalled))

    def _reject(self, reason: str) -> None:
        self._rejected += 1
        now = time.monotonic()
        if now >= self._report_at:
            logger.warning("node %s: %d messages rejected: %s", self._agent.node, self._rejected, reason)
            self._agent.send(Rejected(self._rejected, reason))
            self._rejected = 0
            self._report_at = now + _REPORT_EVERY
