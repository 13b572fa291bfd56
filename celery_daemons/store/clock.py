"""The clock of leases on one machine."""

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Seconds on a clock that all processes of this machine share, that no one sets, and that runs on in suspend."""
    return time.clock_gettime(_BOOTTIME)
