"""A kernel timer that kills the process when its lease ends, whatever the process is doing."""

import ctypes
import os
import signal
import time

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


class Deadman:
    """A timer on the lease clock that kills the process with SIGALRM, whose default action stays in place.

    The timer is absolute where the system supports that (Linux). With a relative timer, a pause between reading the
    clock and arming the timer would extend the life of the process. A process that is stopped by SIGSTOP until after
    the deadline dies when it is continued, before its next instruction. Child processes do not inherit the timer.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._timer = ctypes.c_void_p()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._absolute = hasattr(self._libc, "timer_create") and hasattr(time, "CLOCK_BOOTTIME")
        if self._absolute:
            event = _Sigevent(None, signal.SIGALRM, _SIGEV_SIGNAL)
            if self._libc.timer_create(time.CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)):
                raise OSError(ctypes.get_errno(), "timer_create: " + os.strerror(ctypes.get_errno()))

    def arm(self, deadline: float) -> None:
        """Kill the process at ``deadline`` on the lease clock; a deadline in the past kills the process at once."""
        if not self._absolute:
            left = deadline - lease_clock()
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))
            return
        whole = int(deadline)
        when = _Timespec(whole, int((deadline - whole) * 1e9))
        spec = _Itimerspec(_Timespec(0, 0), when)
        if self._libc.timer_settime(self._timer, _TIMER_ABSTIME, ctypes.byref(spec), None):
            raise OSError(ctypes.get_errno(), "timer_settime: " + os.strerror(ctypes.get_errno()))
