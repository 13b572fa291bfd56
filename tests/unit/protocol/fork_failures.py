"""Handle processes that cannot be forked in an agent of the model, as node/agent.py and node/host_pool.py do."""

import errno
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from celery_daemons.node.serving import Serving
from celery_daemons.node.supervision.commands import Command

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent


class ForkFailures:
    """Tries failed forks again, and lets a node that cannot fork report that and give its daemons back."""

    def __init__(
        self,
        agent: "ModelAgent",
        *,
        apply: Callable[[list[Command]], None],
        call: Callable[[Coroutine[Any, Any, Any], Callable[[Any], None]], None],
    ) -> None:
        """``apply`` carries out commands; ``call`` runs a coroutine and hands over its result."""
        self._agent = agent
        self._apply = apply
        self._call = call
        self._serving = Serving()

    def succeeded(self) -> None:
        """Note that a process was forked and is ready."""
        self._serving.host_ready()

    def retry(self) -> None:
        """Try again to fork."""
        agent = self._agent
        for host_id in agent.hosts.retry_forks():
            self.succeeded()
            self._apply(agent.supervisor.host_ready(host_id, 1, now=agent.now))
        if agent.hosts.unborn:
            self._serving.fork_failed(BlockingIOError(errno.EAGAIN, "no process is left"), now=agent.now)

    def check(self) -> None:
        """Report whether this node can start processes, and give back what waits for one; once per heartbeat."""
        agent, problem = self._agent, self._serving.problem
        if bool(problem) != bool(agent.lease.problem):
            self._call(agent.lease.report_problem(problem), partial(self._reported, problem))
        if self._serving.retry_due(agent.now):
            self._serving.take_new_server()
            self._apply(agent.supervisor.probe(now=agent.now))

    def _reported(self, problem: str, reported: bool) -> None:
        supervisor = self._agent.supervisor
        if reported:
            self._apply(supervisor.cannot_start(problem) if problem else supervisor.can_start(now=self._agent.now))
