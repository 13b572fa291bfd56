"""Stopping processes in their tracks, and seeing them dead."""

from collections.abc import Iterable

import psutil

from tests.support.processes import alive, halted
from tests.support.waiting import wait_until

#: Seconds in which anything here happens, on a machine that does other things as well.
SOON = 30.0


def freeze(*processes: psutil.Process) -> None:
    """Stop processes in their tracks."""
    for process in processes:
        process.suspend()
    wait_until(lambda: all(halted(one) for one in processes), within=SOON, because="SIGSTOP was sent")


def thaw(*processes: psutil.Process) -> None:
    """Let them go on, those that are left."""
    for process in processes:
        if alive(process):
            process.resume()


def wait_dead(processes: Iterable[psutil.Process], *, because: str) -> None:
    """Wait until none of them is alive."""
    wanted = list(processes)
    wait_until(lambda: not any(alive(one) for one in wanted), within=SOON, because=because)
