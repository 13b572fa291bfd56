"""A cluster client for tests."""

from typing import Any

from celery_daemons.client.blocking_client import ClusterClient


class TestClient(ClusterClient):
    """A client on which look-ups can be called directly: ``client.locate(…)`` is ``client.lookups.locate(…)``."""

    __test__ = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["lookups"], name)
