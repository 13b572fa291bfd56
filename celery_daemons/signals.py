"""Signals around the code of daemons and recovery scanners: connect to them as to those of ``celery.signals``.

Receivers are called in the process and the thread of the daemon or scanner. An exception of a receiver is logged and
affects neither. For a coroutine daemon they are called on the event loop and must not block; context variables that a
receiver of ``daemon_started`` or ``scan_started`` sets are visible to the code that follows. A process that is killed
sends nothing, and neither does a process that a daemon has forked.

The sender is the launcher's name, so ``connect(sender="feed")`` limits a receiver to one launcher.
"""

from typing import Any, Final

from celery.utils.dispatch import Signal

#: Right before the code of a daemon is called. Arguments: ``ctx``.
daemon_started: Final[Any] = Signal(name="daemon_started", providing_args={"ctx"})
#: At each call of ``ctx.beat()``, and of ``ctx.sleep()`` before the daemon sleeps. Arguments: ``ctx``.
daemon_beat: Final[Any] = Signal(name="daemon_beat", providing_args={"ctx"})
#: After the code of a daemon has returned, or has ended because it was asked to. Arguments: ``ctx``.
daemon_stopped: Final[Any] = Signal(name="daemon_stopped", providing_args={"ctx"})
#: After the code of a daemon has raised an exception. Arguments: ``ctx``, ``exception``.
daemon_failed: Final[Any] = Signal(name="daemon_failed", providing_args={"ctx", "exception"})
#: Right before a recovery scanner is called. Arguments: ``launcher``.
scan_started: Final[Any] = Signal(name="scan_started", providing_args={"launcher"})
#: After a recovery scanner has listed everything, has failed or was abandoned. Arguments: ``launcher``.
scan_finished: Final[Any] = Signal(name="scan_finished", providing_args={"launcher"})
