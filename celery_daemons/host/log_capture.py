"""Add the daemon to log records of a host, and keep a copy of the daemon's last lines for ``daemons logs``."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from celery_daemons.host.current_run import Run, current_run
from celery_daemons.wire.log_ring import LogRing

_formatter = logging.Formatter()


class LogCapture:
    """Receives every log record of the process, whatever its logger and handlers, and what daemons print."""

    def __init__(self, ring: LogRing | None) -> None:
        self._ring = ring
        #: The run of an isolated host. Threads that the daemon's libraries start belong to this run too.
        self._only: Run | None = None

    def install(self) -> None:
        """Watch all loggers of this process and, unless Celery redirects them to the log, the standard streams."""
        # Not a record factory: it would run before `extra`, and logging refuses an `extra` that the record has already.
        # A factory of the app stays in use.
        make_record = logging.Logger.makeRecord

        def with_daemon(logger: logging.Logger, *args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make_record(logger, *args, **kwargs)
            self._on_record(record)
            return record

        logging.Logger.makeRecord = with_daemon  # type: ignore[method-assign,assignment]
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            # Celery's substitute writes to a logger.
            if stream is not None and not hasattr(stream, "logger"):
                setattr(sys, name, _CapturedStream(stream, name, self))

    @contextlib.contextmanager
    def whole_process(self, run: Run) -> Iterator[None]:
        """Attribute everything in this process to a run for the time of the ``with`` block."""
        self._only = run
        with run.active():
            yield

    def printed(self, stream: str, text: str) -> None:
        """Keep what the current daemon has written to a standard stream, line by line."""
        run = current_run() or self._only
        if run is None or self._ring is None:
            return
        if run.partial is None:
            run.partial = {}
        *lines, rest = (run.partial.pop(stream, "") + text).split("\n")
        if rest:
            run.partial[stream] = rest
        for line in lines:
            self._ring.append(
                run.name, token=run.token, at=time.time(), level=stream, logger="", message=line.rstrip("\r")
            )

    def _on_record(self, record: logging.LogRecord) -> None:
        run = current_run() or self._only
        fields = record.__dict__
        fields.setdefault("daemon", run.name if run else None)
        fields.setdefault("launcher", run.launcher if run else None)
        fields.setdefault("token", run.token if run else None)
        if run is None:
            return
        # Celery's formats show the name of the process: lines of libraries name the daemon too.
        record.processName = f"daemon {run.name}"
        if self._ring is not None:
            self._ring.append(
                run.name,
                token=run.token,
                at=record.created,
                level=record.levelname,
                logger=record.name,
                message=_text_of(record),
            )


class _CapturedStream:
    """A standard stream that also passes what is written to the capture."""

    def __init__(self, stream: TextIO, name: str, capture: LogCapture) -> None:
        self._stream = stream
        self._name = name
        self._capture = capture

    def write(self, text: str) -> int:
        written = self._stream.write(text)
        self._capture.printed(self._name, text)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _text_of(record: logging.LogRecord) -> str:
    """Return the message, and the traceback if there is one. Never raises, whatever a daemon logs."""
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - wrong arguments, or a __str__ that raises; logging itself reports them
        text = str(record.msg)
    if record.exc_info:
        try:
            text = f"{text}\n{_formatter.formatException(record.exc_info)}"
        except Exception:  # noqa: BLE001 - formatting an exception calls its __str__
            return text
    return text
