"""Record in Redis what is wrong with this node: that it can start no processes, or that event loops are blocked."""

import logging
import time
from collections.abc import Callable

from celery_daemons.domain.names import NodeName
from celery_daemons.forkserver.spawner import Spawner
from celery_daemons.node.command_runner import CommandRunner
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.serving import Serving
from celery_daemons.node.supervision.supervisor import Supervisor

logger = logging.getLogger(__name__)


class Conditions:
    """Checked after each heartbeat; writes only what has changed."""

    def __init__(
        self,
        *,
        node: NodeName,
        lease: NodeLease,
        supervisor: Supervisor,
        runner: CommandRunner,
        spawner: Spawner,
        serving: Serving,
        redis_time: Callable[[], float],
    ) -> None:
        """``redis_time`` returns the present Unix time by Redis's clock, in seconds."""
        self._node = node
        self._lease = lease
        self._supervisor = supervisor
        self._runner = runner
        self._spawner = spawner
        self._serving = serving
        self._redis_time = redis_time
        self._reported: list[tuple[int, float, str]] = []

    async def check(self) -> None:
        """Report what has changed, and try again to start processes if that is due."""
        await self._check_serving()
        self._check_loops()

    async def _check_serving(self) -> None:
        """Report whether this node can start processes, give back the daemons that wait for one, and try again."""
        problem = self._serving.problem
        if bool(problem) != bool(self._lease.problem):
            if not await self._lease.report_problem(problem):
                return
            if problem:
                # After the report: the monitor must not assign the same daemons to this node again.
                logger.error("node %s: takes no daemons: %s", self._node, problem)
                self._runner.apply(self._supervisor.cannot_start(problem))
            else:
                logger.info("node %s: can start processes again, takes daemons", self._node)
                self._runner.apply(self._supervisor.can_start(now=time.monotonic()))
        if self._serving.retry_due(time.monotonic()):
            if self._serving.take_new_server():
                self._spawner.replace_server()
            self._runner.apply(self._supervisor.probe(now=time.monotonic()))

    def _check_loops(self) -> None:
        """Change the node's record when an event loop is blocked, or no longer; the next heartbeat writes it."""
        blocked = self._supervisor.blocked_loops()
        if blocked == self._reported:
            return
        self._reported = blocked
        now = time.monotonic()
        loops = (f"{pid}|{1000 * (self._redis_time() - (now - since)):.0f}|{by}" for pid, since, by in blocked)
        self._lease.change_row(blocked=",".join(loops))
