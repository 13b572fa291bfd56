"""Which server a store counts on: another one, that may lack the last writes, is not talked to unawares."""

import re
from typing import Any

from redis.exceptions import RedisError

_RUN_ID = re.compile(rb"^run_id:(\w+)", re.MULTILINE)


class ServerChanged(RedisError):
    """A connection met another server than the one that is counted on; not one of the errors that are tried again."""


class ServerPin:
    """Knows the server by its run id; a restart and the promotion of a replica change it.

    Connections to another server fail until :meth:`accept_new_server`, so that a process whose decisions rest on the
    data learns of the change before its next command is carried out there, not after it.
    """

    def __init__(self) -> None:
        #: The run id of the server that is counted on; empty before the first connection, or if it tells none.
        self.server = ""
        self._met = ""

    def check(self, info: Any) -> None:
        """See who answered ``INFO server`` on a new connection; raises ServerChanged."""
        found = _RUN_ID.search(info if isinstance(info, bytes) else str(info).encode())
        met = found[1].decode() if found else ""
        if not self.server:
            self.server = met
        if met != self.server:
            self._met = met
            raise ServerChanged("it is another server than before")

    def accept_new_server(self) -> bool:
        """Count on the server that was met last; whether that is another one than before."""
        met, self._met = self._met, ""
        if met in ("", self.server):
            return False
        self.server = met
        return True
