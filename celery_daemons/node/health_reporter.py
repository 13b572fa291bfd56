"""Ask the loops of the node to respond, and report the result to the health file and to systemd."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from celery_daemons.node.health_file import HealthFile
from celery_daemons.node.probes import Probes, Readiness
from celery_daemons.node.service_manager import ServiceManager
from celery_daemons.node.vitals import Vitals

logger = logging.getLogger(__name__)

#: Seconds between two rounds. A loop that hangs is found within 15 s, also if it is found one round late.
_INTERVAL: Final = 1.0
#: Rounds between two questions to the hosts; several fit into the time after which a loop counts as hung.
_ROUNDS_PER_QUESTION: Final = 3
#: Rounds between two requests for more time while the node waits to join.
_ROUNDS_PER_EXTENSION: Final = 10


class HealthReporter:
    """Runs beside the agent; nothing that fails here reaches the agent."""

    def __init__(
        self,
        *,
        node: str,
        vitals: Vitals,
        probes: Probes,
        readiness: Readiness,
        ask_hosts: Callable[[], None],
        health_file: HealthFile | None,
        service_manager: ServiceManager,
        describe: Callable[[], str],
        report_problem: Callable[[str], None],
    ) -> None:
        """``describe`` returns a line for systemd; ``report_problem`` gets why the health file cannot be written."""
        self._node = node
        self._vitals = vitals
        self._probes = probes
        self._readiness = readiness
        self._ask_hosts = ask_hosts
        self._health_file = health_file
        self._service_manager = service_manager
        self._describe = describe
        self._report_problem = report_problem
        self._round = 0
        self._was_healthy = True
        self._reported_ready = False
        self._reported_stopping = False

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            try:
                self.report(time.monotonic())
            except Exception:
                # A defect here must not end the agent.
                logger.exception("node %s: reporting its health failed, trying again", self._node)
            await asyncio.sleep(_INTERVAL)

    def report(self, now: float) -> None:
        """Ask the hosts, and report once."""
        self._vitals.begin_round(now)
        if self._round % _ROUNDS_PER_QUESTION == 0:
            self._ask_hosts()
        healthy = self._probes.healthy(now)
        if bool(healthy.reasons) == self._was_healthy:
            self._was_healthy = not healthy.reasons
            if healthy.reasons:
                logger.error("node %s: not healthy: %s", self._node, "; ".join(healthy.reasons))
            else:
                logger.info("node %s: healthy again", self._node)
        self._report_to_file(healthy=not healthy.reasons)
        self._report_to_service_manager(now, healthy=not healthy.reasons)
        self._round += 1

    def close(self) -> None:
        """Report that the process ends."""
        if self._health_file is not None:
            self._health_file.remove()
        # A drain may be over before the next round.
        self._report_end()

    def _report_end(self) -> None:
        if self._vitals.ending and not self._reported_stopping:
            self._reported_stopping = True
            self._service_manager.stopping()

    def _report_to_file(self, *, healthy: bool) -> None:
        if self._health_file is None:
            return
        if not healthy:
            self._health_file.remove()
            return
        before = self._health_file.problem
        self._health_file.touch()
        if self._health_file.problem != before:
            self._report_problem(self._health_file.problem)

    def _report_to_service_manager(self, now: float, *, healthy: bool) -> None:
        manager = self._service_manager
        if not manager.present:
            return
        self._report_end()
        if not self._vitals.ending and not self._reported_ready:
            if not self._readiness.started:
                if self._round % _ROUNDS_PER_EXTENSION == 0:
                    manager.waiting(self._readiness.why_not())
                return
            self._reported_ready = True
            manager.ready()
        manager.status(self._describe())
        if healthy:
            manager.alive(now)
