"""Whether an app takes part in a cluster, or records in memory what its calls ask for."""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from celery_daemons.client.app_settings import has_broker_in_memory
from celery_daemons.client.recorded import RecordedCluster
from celery_daemons.settings import ENVIRONMENT_PREFIX, PREFIX, Settings

logger = logging.getLogger(__name__)


class Participation:
    """Decides from an app's settings whether workers are nodes and calls go to a cluster; warns once if not."""

    def __init__(self, app: Any, *, overrides: Mapping[str, Any], settings: Callable[[], Settings]) -> None:
        self._app = app
        self._overrides = overrides
        self._settings = settings
        self._warned = False
        #: The value of ``task_always_eager``, with the settings and the changes to them from which it was read.
        self._eager: tuple[Any, dict[str, Any], bool] = (None, {}, False)
        self._recorded: RecordedCluster | None = None

    def why_not(self, *, embedded: bool = False) -> str | None:
        """Return why the workers of the app are not nodes, as a clause, or ``None`` if the workers are nodes.

        ``embedded`` says that the question is about Celery's worker for tests.
        """
        if embedded and not self._is_set("redis_url") and not self._is_set("enabled"):
            return "it is an embedded test worker, and neither daemons_enabled nor daemons_redis_url is set"
        if self._settings().enabled:
            return None
        if has_broker_in_memory(self._app.conf) and not self._is_set("enabled"):
            return "the broker is in memory, and daemons_redis_url is not set"
        return "daemons_enabled is false"

    def why_recorded(self) -> str | None:
        """Return why calls are recorded in memory, as a clause, or ``None`` if calls go to a cluster."""
        return "task_always_eager is set" if self._is_eager() else self.why_not()

    def recorded(self) -> RecordedCluster | None:
        """Return what calls have recorded in memory; ``None`` if calls go to a cluster."""
        why = self.why_recorded()
        if why is None:
            return None
        self.warn(f"{why}: calls of daemons are recorded in memory and change no cluster")
        if self._recorded is None:
            self._recorded = RecordedCluster(why)
        return self._recorded

    def warn(self, warning: str) -> None:
        """Log a warning, unless one was logged already."""
        if not self._warned:
            self._warned = True
            logger.warning("%s", warning)

    def _is_eager(self) -> bool:
        conf = self._app.conf
        read_from, changes, eager = self._eager
        # Read again only after a change: Celery takes 5 µs to find a setting, more than the rest of a look-up.
        if read_from is not conf or changes != conf.changes:
            eager = bool(conf.task_always_eager)
            self._eager = (conf, dict(conf.changes), eager)
        return eager

    def _is_set(self, name: str) -> bool:
        return (
            self._overrides.get(name) is not None
            or self._app.conf.get(PREFIX + name) is not None
            or bool(os.environ.get(ENVIRONMENT_PREFIX + name.upper()))
        )
