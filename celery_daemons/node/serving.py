"""Decide whether this node can start processes: pure, from what forks and hosts report."""

import errno
from math import inf
from typing import Final

#: Seconds of failed forks after which the node cannot serve. A shorter shortage is over before another node has started
#: the daemons.
_PATIENCE: Final = 3.0
#: Seconds until the first attempt to serve again, doubled for each further one up to the maximum.
_FIRST_RETRY: Final = 1.0
_LONGEST_RETRY: Final = 30.0
#: Doublings that are enough to reach the longest wait, whatever the number of attempts.
_DOUBLINGS: Final = 5
#: Errors of a shortage, with which another fork server would fail too.
_SHORTAGES: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC))


class Serving:
    """What keeps this node from starting processes, and when to try again; times in monotonic seconds."""

    def __init__(self) -> None:
        #: Why the node cannot start processes; empty while it can.
        self.problem = ""
        self._needs_new_server = False
        self._failing_since: float | None = None
        self._retries = 0
        self._retry_at = inf

    def fork_failed(self, error: OSError | EOFError, *, now: float) -> None:
        """Note a fork that failed; after some seconds of such failures the node cannot serve."""
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since >= _PATIENCE:
            shown = str(error) or "the fork server has died"
            self._failed(f"no process can be forked: {shown}", now)
            self._needs_new_server = not (isinstance(error, OSError) and error.errno in _SHORTAGES)

    def load_failed(self, why: str, *, now: float) -> None:
        """Note that a forked process could not load the app. Only a new fork server imports the app again."""
        self._failed(why, now)
        self._needs_new_server = True

    def host_ready(self) -> None:
        """Note that a host has been forked and has loaded the app."""
        self.problem = ""
        self._failing_since = None
        self._needs_new_server = False
        self._retries = 0
        self._retry_at = inf

    def retry_due(self, now: float) -> bool:
        """Return whether to try again now, and set the time of the attempt after that."""
        if now < self._retry_at:
            return False
        self._retries += 1
        self._retry_at = now + min(_LONGEST_RETRY, _FIRST_RETRY * 2.0 ** min(self._retries, _DOUBLINGS))
        return True

    def take_new_server(self) -> bool:
        """Return whether the next attempt needs a new fork server; true once per failure."""
        needed, self._needs_new_server = self._needs_new_server, False
        return needed

    def _failed(self, problem: str, now: float) -> None:
        if not self.problem:
            self._retry_at = now + _FIRST_RETRY
        self.problem = problem
