"""Suspend and resume processes, and wait for their end."""

from collections.abc import Iterable

import psutil

from tests.support.processes import alive, halted
from tests.support.waiting import wait_until

#: Seconds within which everything here happens, even on a busy machine.
SOON = 30.0


def freeze(*processes: psutil.Process) -> None:
    """Suspend processes and wait until all are suspended."""
    for process in processes:
        process.suspend()
    wait_until(lambda: all(halted(one) for one in processes), within=SOON, because="SIGSTOP was sent")


def thaw(*processes: psutil.Process) -> None:
    """Resume the processes that still exist."""
    for process in processes:
        if alive(process):
            process.resume()


def wait_dead(processes: Iterable[psutil.Process], *, because: str) -> None:
    """Wait until none of the processes is alive."""
    wanted = list(processes)
    wait_until(lambda: not any(alive(one) for one in wanted), within=SOON, because=because)
