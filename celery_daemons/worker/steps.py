"""Celery boot steps: the agent lives as long as the worker, the consumers of its queues as long as a connection."""

import logging
import time
from typing import Any, Final

from celery import bootsteps
from celery.concurrency.solo import TaskPool as SoloPool
from celery.utils.nodenames import node_format
from celery.worker import state

from celery_daemons.launcher import daemons_of_app
from celery_daemons.worker.agent_process import AgentProcess
from celery_daemons.worker.boot import boot_for
from celery_daemons.worker.command_line import errors_in_one_line
from celery_daemons.worker.guard import Guard
from celery_daemons.worker.node_queues import NodeQueuesConsumer

logger = logging.getLogger(__name__)

#: Seconds between two checks of the agent: a dead agent is replaced at most this much late.
_AGENT_CHECK: Final = 0.25
#: Seconds of the drain time-out that the agent has for its own exit after it has handed over its daemons.
_AGENT_EXIT_MARGIN: Final = 1.0
#: Celery's worker for tests, which runs inside the process of the tests.
_TEST_WORKER: Final = "celery.contrib.testing.worker"


def _expanded(logfile: Any, node: str) -> str | None:
    """Fill in ``%n`` and the like in a worker's ``--logfile``; ``%i`` and ``%I``, for pool processes, become empty."""
    return node_format(logfile, node, i="", I="") if isinstance(logfile, str) else None


def _is_set(status: Any) -> bool:
    """Return whether a flag of Celery's is set: Celery stores an exit status, which may be 0, or None or False."""
    return status is not None and status is not False


def _shutting_down() -> bool:
    return _is_set(state.should_stop) or _is_set(state.should_terminate)


def _no_ticks(worker: Any) -> str:
    """Return why the worker's timer does not show whether its loop runs; empty if it does."""
    if issubclass(worker.pool_cls, SoloPool):
        return "the solo pool runs tasks in the worker's loop, which does not run meanwhile"
    if not worker.use_eventloop:
        return "with this pool or broker, Celery's timer is a thread, which ticks even if the worker hangs"
    return ""


def _is_embedded(worker: Any) -> bool:
    return any(base.__module__ == _TEST_WORKER for base in type(worker).__mro__)


class AgentStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Starts the agent, replaces an agent that has died, and drains the agent while the worker shuts down.

    Once the worker has started, nothing that fails here reaches the worker.
    """

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
        self._began_cold = False
        self._timer_entry: Any = None
        worker.daemons_agent = None

    def include_if(self, worker: Any) -> bool:
        """Return whether the worker is to be a node."""
        if not self.enabled:
            return False
        participation = daemons_of_app(worker.app).participation
        with errors_in_one_line():
            why = participation.why_not(embedded=_is_embedded(worker))
        if why is not None:
            participation.warn(f"worker {worker.hostname}: {why}; it is a plain worker without daemons")
        return why is None

    def create(self, worker: Any) -> None:
        """Validate settings and app. An error here keeps the worker from starting and names the reason."""
        options = {"node_labels": self._labels, "node_weight": self._weight}
        with errors_in_one_line():
            settings = daemons_of_app(worker.app).settings_with(**options)
            boot = boot_for(
                worker.app,
                settings,
                node=worker.hostname,
                no_ticks=_no_ticks(worker),
                loglevel=worker.loglevel,
                logfile=_expanded(worker.logfile, worker.hostname),
            )
        self._drain_timeout = settings.drain_timeout
        self._guard = Guard(
            f"node {worker.hostname}: checking the agent",
            remedy="the worker's tasks continue; trying again, at least every 30 s",
            pauses=True,
        )
        self._ending_guard = Guard(
            f"node {worker.hostname}: ending the agent",
            remedy="the agent ends by itself once the worker has exited, and its daemons move then",
        )
        logger.info("node %s: joins the cluster of daemons in namespace %s", worker.hostname, settings.namespace)
        worker.daemons_agent = AgentProcess(boot)

    def start(self, worker: Any) -> None:
        """Start the agent."""
        worker.daemons_agent.start()
        self._timer_entry = worker.timer.call_repeatedly(_AGENT_CHECK, self._keep_agent_alive, (worker.daemons_agent,))

    def _keep_agent_alive(self, agent: AgentProcess) -> None:
        # A service manager signals the agent as well as the worker. The worker must not start another agent then,
        # even if its own loop, which may be waiting for the broker, acts on the signal only seconds later.
        if not _shutting_down():
            self._guard.call(agent.keep_alive)

    def close(self, worker: Any) -> None:
        """Start the drain when the shutdown starts, so that daemons move while the pool finishes tasks."""
        if worker.daemons_agent is not None:
            self._ending_guard.call(self._drain, worker.daemons_agent)

    def _drain(self, agent: AgentProcess) -> None:
        self._began_cold = _is_set(state.should_terminate)
        self._drain_until = time.monotonic() + self._drain_timeout
        if self._timer_entry is not None:
            self._timer_entry.cancel()
        agent.drain(max(0.0, self._drain_timeout - _AGENT_EXIT_MARGIN))

    def stop(self, worker: Any) -> None:
        """Wait for the drain until the drain time-out, and kill the agent after that."""
        if worker.daemons_agent is not None:
            self._ending_guard.call(self._wait, worker.daemons_agent)

    terminate = stop

    def _wait(self, agent: AgentProcess) -> None:
        left = self._drain_until - time.monotonic()
        if not agent.wait(left, hurried=self._is_hurried):
            logger.warning("node %s: not drained in time, agent killed", agent.node)

    def _is_hurried(self) -> bool:
        """Return whether a second Ctrl-C, after the drain had begun, asks for an end at once."""
        return not self._began_cold and _is_set(state.should_terminate)


class SpawnStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Consumes the node's queues while there is a connection to the broker."""

    label = "DaemonSpawns"
    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        self._queues: NodeQueuesConsumer | None = None

    def include_if(self, consumer: Any) -> bool:
        """Return whether the worker has an agent."""
        return consumer.controller.daemons_agent is not None

    def start(self, consumer: Any) -> None:
        """Consume the node's task queue with the worker's other queues, and the spawn queue on a separate channel."""
        if self._queues is None:
            namespace = daemons_of_app(consumer.app).settings.namespace
            self._queues = NodeQueuesConsumer(consumer, namespace=namespace)
        self._queues.start()
        consumer.controller.daemons_agent.set_consuming(True)

    def stop(self, consumer: Any) -> None:
        """Stop consuming. A worker that exits, unlike a worker that loses the broker, deletes the spawn queue."""
        if self._queues is not None:
            consumer.controller.daemons_agent.set_consuming(False)
            self._queues.stop(delete=consumer.blueprint.state == bootsteps.CLOSE)

    def shutdown(self, consumer: Any) -> None:
        """Close the channel."""
        if self._queues is not None:
            self._queues.stop(delete=False)
