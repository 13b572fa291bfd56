"""Pin a store to one Redis server: connections to a different server fail until that server is accepted."""

import re
from typing import Any, Final

from redis.exceptions import RedisError

#: Stands for the run id of a server that reports none: such servers differ in their histories only.
_NO_RUN_ID: Final = "unknown"
_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


class ServerChanged(RedisError):
    """A connection leads to a different server; the Redis client does not retry after this error."""


def server_id(run_id: str, history: str) -> str:
    """Return what identifies a server with its present history of writes.

    A primary that becomes a replica and is promoted again keeps its run id, and may have lost its last writes. Its
    history, which every promotion and every restart replaces, is then another one. Some servers report no history.
    """
    return f"{run_id}:{history}" if history else run_id


class ServerPin:
    """The run id of the server that a store may use. A restart, or the promotion of a replica, changes the run id.

    A different server may lack the last writes. Connections to it fail until :meth:`accept_new_server`, so that a
    process that decides from the data notices the change before its next command runs there.
    """

    def __init__(self) -> None:
        #: The run id of the pinned server; empty before the first connection.
        self.server = ""
        self._rejected = ""

    def check(self, info: Any) -> None:
        """Compare the reply to ``INFO server`` on a new connection with the pin. Raises ServerChanged."""
        match = _RUN_ID.search(info if isinstance(info, bytes) else str(info).encode())
        run_id = match[1].decode() if match else _NO_RUN_ID
        if not self.server:
            self.server = run_id
        if run_id != self.server:
            self._rejected = run_id
            raise ServerChanged(f"connected to a different server: run id {run_id}, expected {self.server}")

    def accept_new_server(self) -> bool:
        """Pin the server that was rejected last; return whether the pin changed."""
        run_id, self._rejected = self._rejected, ""
        if run_id in ("", self.server):
            return False
        self.server = run_id
        return True
