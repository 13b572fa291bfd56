"""How much memory host processes use, for ``daemons_host_max_memory``."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

K = TypeVar("K")

#: Seconds between two measurements.
_INTERVAL: Final = 5.0
_PAGE_KIB: Final = os.sysconf("SC_PAGE_SIZE") // 1024


class HostMemory:
    """Measures at most once per interval."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def measure(self, pids: Mapping[K, int]) -> dict[K, int]:
        """Return the KiB in memory of each process, shared pages included; empty if no measurement is due."""
        now = time.monotonic()
        if now < self._next_at:
            return {}
        self._next_at = now + _INTERVAL
        return {key: resident_kib(pid) for key, pid in pids.items()}


def resident_kib(pid: int) -> int:
    """Return a process's resident memory in KiB; 0 for a process that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_KIB
    except (OSError, IndexError, ValueError):
        return 0
