"""A kernel timer that kills the process when its lease ends, whatever the process is doing."""

import contextlib
import ctypes
import os
import signal
import time
from typing import Any

from celery_daemons.store.clock import lease_clock

_SIGEV_SIGNAL = 0
_TIMER_ABSTIME = 1


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("pad", ctypes.c_byte * 48),
    )


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def timer_library() -> Any:
    """Return the C library with timers that have absolute deadlines, or ``None`` if the system has none."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return None
    # Before glibc 2.34 the timers were in a library of their own.
    for name in (None, "librt.so.1"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(name, use_errno=True)
            if hasattr(library, "timer_create"):
                return library
    return None


def create_timer(library: Any) -> ctypes.c_void_p:
    """Return a new timer on the lease clock, which does not run yet. Raises OSError."""
    timer = ctypes.c_void_p()
    event = _Sigevent(None, signal.SIGALRM, _SIGEV_SIGNAL)
    if library.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), "timer_create: " + os.strerror(ctypes.get_errno()))
    return timer


class Deadman:
    """A timer on the lease clock that kills the process with SIGALRM, whose default action stays in place.

    The timer is absolute on Linux, where an agent refuses to run without such timers (see ``node/system.py``). With a
    relative timer, a pause between reading the clock and arming the timer would extend the life of the process. A
    process that is stopped by SIGSTOP until after the deadline dies when it is continued, before its next instruction.
    Child processes do not inherit the timer.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._library = timer_library()
        self._timer = create_timer(self._library) if self._library is not None else None

    def arm(self, deadline: float) -> None:
        """Kill the process at ``deadline`` on the lease clock; a deadline in the past kills the process at once."""
        if self._timer is None:
            left = deadline - lease_clock()
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))
            return
        whole = int(deadline)
        when = _Timespec(whole, int((deadline - whole) * 1e9))
        spec = _Itimerspec(_Timespec(0, 0), when)
        if self._library.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timer_settime: " + os.strerror(ctypes.get_errno()))
