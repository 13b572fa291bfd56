"""What the system must provide for the guarantees to hold, checked before the agent does anything."""

import os
import signal
import sys

from celery_daemons.forkserver.deadman import create_timer, timer_library


def missing(*, timers: bool) -> str | None:
    """Return what this system lacks, with the remedy, or ``None`` if daemons can run here.

    ``timers`` says whether hosts end with the lease, as they do unless ``daemons_on_store_loss`` is ``"keep"``.
    Other systems than Linux are not checked: they are for development, without the guarantees.
    """
    if sys.platform != "linux":
        return None
    try:
        descriptor = os.pidfd_open(os.getpid())
        try:
            signal.pidfd_send_signal(descriptor, 0)
        finally:
            os.close(descriptor)
    except (AttributeError, OSError) as error:
        # Without it, the death of a host is not known for certain: its daemons could start twice.
        return (
            f"the system provides no pidfd ({error}), by which the kernel reports the death of a process; run Linux "
            "5.3 or newer, and let the container's seccomp profile allow pidfd_open and pidfd_send_signal"
        )
    if not timers:
        return None
    library = timer_library()
    if library is None:
        return (
            "the C library provides no timer_create, by which the kernel ends a process with its lease; use glibc or "
            "musl of a current distribution"
        )
    try:
        library.timer_delete(create_timer(library))
    except OSError as error:
        return (
            f"the system provides no timer on CLOCK_BOOTTIME ({error}), by which the kernel ends a process with its "
            "lease; run Linux, not an emulation of it, and let the container's seccomp profile allow timer_create"
        )
    return None
