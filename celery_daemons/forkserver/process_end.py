"""The end of a process that has run user code: what a script gets at its end, within a limit, and then the exit."""

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, NoReturn

from celery_daemons.forkserver.unpatched import start_new_thread

logger = logging.getLogger(__name__)

#: Seconds for threads, atexit functions and exporters. Longer, and a daemon with a thread that never ends would start
#: again much later; shorter, and a report over a slow network is lost.
END_TIMEOUT: Final = 2.0


def send_process_init() -> None:
    """Send Celery's ``worker_process_init``; an exception of a handler is logged by Celery."""
    from celery.signals import worker_process_init

    worker_process_init.send(sender=None)


def end_process(status: int) -> NoReturn:
    """Do what the interpreter does at the end of a script, for at most :data:`END_TIMEOUT` seconds, and exit.

    Never returns. The lease timer stays armed meanwhile. The limit needs a thread: if the system refuses one, only the
    standard streams are flushed.
    """
    try:
        start_new_thread(_exit_late, (status,))
    except RuntimeError as error:
        _quietly(logger.warning, "the process ends without its atexit functions: %s", error)
        _quietly(_flush_streams)
        os._exit(status)
    _quietly(_send_process_shutdown, status)
    # What Py_FinalizeEx calls: ends executors and waits for threads that are not daemon threads.
    _quietly(threading._shutdown)  # type: ignore[attr-defined]
    _quietly(atexit._run_exitfuncs)
    for flush in (_flush_sentry, _flush_opentelemetry, logging.shutdown, _flush_streams):
        _quietly(flush)
    os._exit(status)


def end_forked_child(error: BaseException | None) -> NoReturn:
    """End a process that user code made with ``os.fork()`` and that has left the daemon's code, as a script ends.

    The fork must not continue as a second host: it would run the daemons of its parent.
    """
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        status = 1
        _quietly(traceback.print_exception, error)
    _quietly(_flush_streams)
    os._exit(status)


def _exit_late(status: int) -> None:
    time.sleep(END_TIMEOUT)
    os._exit(status)


def _quietly(function: Callable[..., object], *args: Any) -> None:
    """Call a function that runs user code; an exception is logged, and the rest of the end follows."""
    try:
        function(*args)
    except BaseException as error:  # noqa: BLE001 - sys.exit in an atexit function included
        with contextlib.suppress(BaseException):
            logger.warning("%s failed at the end of the process: %r", function.__name__, error)


def _send_process_shutdown(status: int) -> None:
    from celery.signals import worker_process_shutdown

    worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=status)


def _flush_sentry() -> None:
    # Its own atexit function was registered in the fork server, where sentry_sdk.init() ran with the app.
    sentry = sys.modules.get("sentry_sdk")
    if sentry is not None:
        sentry.flush(timeout=END_TIMEOUT)


def _flush_opentelemetry() -> None:
    for module, getter in (("trace", "get_tracer_provider"), ("metrics", "get_meter_provider")):
        api = sys.modules.get(f"opentelemetry.{module}")
        provider: Any = getattr(api, getter)() if api is not None else None
        if hasattr(provider, "force_flush"):
            provider.force_flush(int(END_TIMEOUT * 1000))


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
