"""``daemons_health_file``: a file that is touched while the node is healthy, for probes without a port."""

import contextlib
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


class HealthFile:
    """The file; no method raises. ``problem`` is why the file cannot be written, empty if it can."""

    def __init__(self, path: str, *, node: str) -> None:
        self._path = Path(path)
        self._node = node
        self.problem = ""

    def touch(self) -> None:
        """Create the file, or set its time of modification."""
        try:
            # A regular file only: opening a FIFO would block the loop that holds the lease.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
            try:
                os.utime(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            problem = f"daemons_health_file: cannot touch {self._path} ({error.strerror}); make its folder writable"
            if problem != self.problem:
                self.problem = problem
                logger.error("node %s: %s", self._node, problem)
            return
        self.problem = ""

    def remove(self) -> None:
        """Remove the file: the node is not healthy, or leaves."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
