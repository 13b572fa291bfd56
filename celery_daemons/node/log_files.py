"""The files in which hosts keep the last log lines of their daemons: those of live hosts, and of some dead ones."""

import contextlib
from collections import OrderedDict
from pathlib import Path
from typing import Final

from celery_daemons.node.supervision.commands import HostId
from celery_daemons.wire.log_ring import LogLine, lines_in

#: Bytes of the files of dead hosts that are kept: they show what a daemon logged before its process died.
_DEAD_BYTES: Final = 16 * 1024 * 1024
#: The most such files.
_DEAD_FILES: Final = 500

#: What changes with each line that a host writes: the time of the last write, and the size.
Stamp = tuple[int, int]


class LogFiles:
    """Names the files, and removes the oldest of those that no host still writes."""

    def __init__(self, folder: str) -> None:
        """Keep the files in a folder that the worker removes; without a folder, hosts keep no lines."""
        self._folder = folder
        self._live: set[HostId] = set()
        self._dead: OrderedDict[HostId, int] = OrderedDict()

    def open(self, host: HostId) -> str:
        """Return the path for a new host, empty for none."""
        if not self._folder:
            return ""
        self._live.add(host)
        return str(self._path(host))

    def close(self, host: HostId) -> None:
        """Note that a host is dead. Its file is kept for a while, unless the file is empty."""
        if host not in self._live:
            return
        self._live.discard(host)
        with contextlib.suppress(OSError):
            self._dead[host] = self._path(host).stat().st_size
        while self._dead and (
            len(self._dead) > _DEAD_FILES
            or sum(self._dead.values()) > _DEAD_BYTES
            or not next(reversed(self._dead.values()))
        ):
            newest_is_empty = not next(reversed(self._dead.values()))
            removed, _ = self._dead.popitem(last=newest_is_empty)
            with contextlib.suppress(OSError):
                self._path(removed).unlink()

    def paths(self) -> list[Path]:
        """Return the files that may hold lines, those of dead hosts first."""
        return [self._path(host) for host in (*self._dead, *sorted(self._live))]

    def stamp(self, host: HostId | None) -> Stamp:
        """Return a value that changes when a host writes; it stays the same for a host without a file."""
        if host is not None and self._folder:
            with contextlib.suppress(OSError):
                found = self._path(host).stat()
                return found.st_mtime_ns, found.st_size
        return 0, 0

    def _path(self, host: HostId) -> Path:
        return Path(self._folder) / f"log-{host}"


def read_lines(paths: list[Path], name: str) -> list[LogLine]:
    """Return the lines of a daemon in these files, in the order of its runs. Reads whole files: call in a thread."""
    lines = []
    for path in paths:
        with contextlib.suppress(OSError):
            lines += lines_in(path.read_bytes(), name)
    lines.sort(key=lambda line: (line.token, line.number))
    return lines
