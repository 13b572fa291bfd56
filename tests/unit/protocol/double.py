"""The double of the server: it runs the real scripts, and its data can be read and replaced without a command."""

from collections.abc import Mapping
from typing import Any

import fakeredis

#: The data of a server: values and their expiry by key. Not changed, and not to be changed.
Data = Mapping[bytes, Any]


class Double:
    """A server without a process, and a client of it. Setting it up takes long, so one serves many worlds in turn."""

    def __init__(self) -> None:
        server = fakeredis.FakeServer()
        self.client = fakeredis.FakeRedis(server=server)
        self.client.ping()
        self._lock = server.lock
        self._database = server.dbs[0]

    def read(self, now_us: int) -> Data:
        """Return what the server holds at a time."""
        self._database.time = now_us / 1e6
        return self._database

    def replace(self, data: Data) -> None:
        """Replace everything that the server holds; what is given belongs to the server from then on."""
        with self._lock:
            self._database.clear()
            self._database.update(data)
