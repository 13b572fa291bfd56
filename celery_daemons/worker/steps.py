"""The two boot steps: one that lives as long as the worker, one that lives as long as its broker connection."""

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

#: Seconds between two looks at the agent.
_LOOK: Final = 0.25
#: Seconds of the drain time-out left to the agent to end by itself after it gave its daemons up.
_LAST_CALL: Final = 1.0
#: Seconds between two reports of rejected messages: a flood of them is one line, not a hundred thousand.
_REPORT_EVERY: Final = 5.0


def settings_of(app: Any) -> Settings:
    """The settings of the app's Daemons, complete and checked."""
    return daemons_of_app(app).settings


def _expanded(logfile: Any, node: str) -> str | None:
    """A worker's ``--logfile`` with its ``%n`` and the like filled in; ``%i`` and ``%I`` are of pool processes."""
    return node_format(logfile, node, i="", I="") if isinstance(logfile, str) else None


def _shutting_down() -> bool:
    """Whether the worker has been told to stop; Celery keeps an exit status there, ``None`` or ``False`` for no."""
    return any(told is not None and told is not False for told in (state.should_stop, state.should_terminate))


class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the agent, looks after it, and lets it drain while the worker shuts down."""

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
        self._drain_until = 0.0
        self._look: Any = None
        worker.daemons_agent = None

    def create(self, worker: Any) -> None:
        """Check everything that can be wrong: an error here keeps the worker from starting, with its reason."""
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
        self._look = worker.timer.call_repeatedly(_LOOK, self._attend, (worker.daemons_agent,))

    def _attend(self, agent: AgentProcess) -> None:
        # A service manager signals the agent too. Once the worker has heard the same, no other agent takes its place;
        # a loop that waits for its broker acts on the signal seconds later.
        if not _shutting_down():
            agent.keep_alive()

    def close(self, worker: Any) -> None:
        """Begin the drain as soon as shutdown begins: daemons move while the pool finishes its tasks."""
        if self._look is not None:
            self._look.cancel()
        if worker.daemons_agent is not None:
            self._drain_until = time.monotonic() + self._drain_timeout
            worker.daemons_agent.drain(max(0.0, self._drain_timeout - _LAST_CALL))

    def stop(self, worker: Any) -> None:
        """Wait for the drain, no longer than its time-out."""
        if worker.daemons_agent is not None and not worker.daemons_agent.wait(self._drain_until - time.monotonic()):
            logger.warning("node %s: not drained in time, its agent was killed", worker.hostname)

    terminate = stop


class SpawnStep(bootsteps.ConsumerStep):  # type: ignore[misc]
    """Consumes the node's spawn queue on a channel of its own, so that a full pool does not hold spawn tasks up."""

    label = "DaemonSpawns"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self._rejected = 0
        self._report_at = 0.0

    def include_if(self, consumer: Any) -> bool:
        """Only beside an agent."""
        return consumer.controller.daemons_agent is not None

    def start(self, consumer: Any) -> None:
        """Consume the spawn queue, and the node's task queue with the worker's own."""
        self._agent: AgentProcess = consumer.controller.daemons_agent
        self._namespace = settings_of(consumer.app).namespace
        consumer.add_task_queue(task_queue_name(self._namespace, consumer.hostname))
        super().start(consumer)

    def stop(self, consumer: Any) -> None:
        """Consume no more; a worker that ends, rather than loses its broker, takes its spawn queue with it."""
        if consumer.blueprint.state == bootsteps.CLOSE:
            for one in self.consumers or ():
                ignore_errors(consumer.connection, one.cancel)
                for queue in one.queues:
                    ignore_errors(consumer.connection, queue.delete)
        super().stop(consumer)

    def get_consumers(self, channel: Any) -> list[Consumer]:
        """One consumer that sees raw messages: nothing that comes in may raise in the worker."""
        queue = spawn_queue(spawn_queue_name(self._namespace, self._agent.node))
        return [Consumer(channel, queues=[queue], on_message=self._on_message, accept=["json"], tag_prefix="daemons")]

    def _on_message(self, message: Any) -> None:
        try:
            task = SpawnTask.decode(message, node=self._agent.node)
        except NotASpawnTask as error:
            message.reject()
            self._reject(str(error))
        else:
            # At once: claims decide who runs what, and a redelivered spawn task would be one more refused claim.
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
