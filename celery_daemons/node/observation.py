"""Build what makes a node observable: probes, metrics, the health file and messages to systemd."""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from celery_daemons.http_endpoint import http_endpoint
from celery_daemons.node.health_file import HealthFile
from celery_daemons.node.health_reporter import HealthReporter
from celery_daemons.node.http_answer import HttpAnswer
from celery_daemons.node.lifetime import Lifetime
from celery_daemons.node.probes import LIVEZ, LIVEZ_WORKER, READYZ, STARTUPZ, Probes, Readiness
from celery_daemons.node.service_manager import ServiceManager
from celery_daemons.node.vitals import Vitals
from celery_daemons.settings import Settings

if TYPE_CHECKING:
    from celery_daemons.node.http_server import HttpServer

logger = logging.getLogger(__name__)

METRICS: Final = "/metrics"
_PATHS: Final = (LIVEZ, LIVEZ_WORKER, READYZ, STARTUPZ, METRICS)

#: Returns the page of metrics for an ``Accept`` header.
MetricsPage = Callable[[str], HttpAnswer]


class Observation:
    """Serves what the settings ask for, as long as the process lives; does nothing if they ask for nothing."""

    def __init__(
        self,
        *,
        settings: Settings,
        node: str,
        vitals: Vitals,
        readiness: Readiness,
        service_manager: ServiceManager,
        metrics_page: MetricsPage,
        ask_hosts: Callable[[], None],
        describe: Callable[[], str],
        set_warning: Callable[[str], None],
    ) -> None:
        """``set_warning`` gets what should be corrected; ``describe`` returns a line about the node."""
        self._probes = Probes(vitals=vitals, readiness=readiness)
        self._metrics_page = metrics_page
        self._set_warning = set_warning
        self._warnings: dict[str, str] = {}
        self._server: HttpServer | None = None
        self._reporter: HealthReporter | None = None
        if settings.http is not None:
            # Imported only by nodes that serve HTTP: it takes memory.
            from celery_daemons.node import http_server

            host, port = http_endpoint(settings.http)
            self._server = http_server.HttpServer(
                node=node,
                host=host,
                port=port,
                answer=self.answer,
                report_problem=lambda problem: self._note("http", problem),
            )
        if settings.http is not None or settings.health_file is not None or service_manager.present:
            self._reporter = HealthReporter(
                node=node,
                vitals=vitals,
                probes=self._probes,
                readiness=readiness,
                ask_hosts=ask_hosts,
                health_file=HealthFile(settings.health_file, node=node) if settings.health_file else None,
                service_manager=service_manager,
                describe=describe,
                report_problem=lambda problem: self._note("health_file", problem),
            )

    def start(self, lifetime: Lifetime) -> None:
        """Start to serve and to report."""
        if self._reporter is not None:
            lifetime.start(self._reporter.run())
        if self._server is not None:
            lifetime.start(self._server.run())

    def close(self) -> None:
        """Report that the process ends."""
        if self._reporter is not None:
            self._reporter.close()

    def answer(self, path: str, accept: str) -> HttpAnswer:
        """Return the answer to a request."""
        if path == METRICS:
            return self._metrics_page(accept)
        verdict = self._probes.answer(path, time.monotonic())
        if verdict is not None:
            return HttpAnswer(status=verdict.status, body=verdict.text.encode())
        return HttpAnswer(status=200 if path == "/" else 404, body="".join(f"{known}\n" for known in _PATHS).encode())

    def _note(self, source: str, problem: str) -> None:
        if problem != self._warnings.get(source, ""):
            self._warnings[source] = problem
            self._set_warning("; ".join(filter(None, self._warnings.values())))
