"""The clock on which the processes of one machine measure leases."""

import time

_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def lease_clock() -> float:
    """Return seconds on a clock that is shared by all processes, never set, and also runs during suspend."""
    return time.clock_gettime(_BOOTTIME)
