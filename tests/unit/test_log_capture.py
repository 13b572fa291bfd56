"""Log records of daemons name the daemon, whatever the logger, its handlers and the record factory of the app."""

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.host.current_run import Run
from celery_daemons.host.log_capture import LogCapture
from celery_daemons.wire.log_ring import LogRing, lines_in

RUN = Run(DaemonName("tail.web-1"), LauncherName("tail"), Token(9))


class Collector(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.records.append(record)


@pytest.fixture
def capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """Return a capture that is installed for one test."""
    monkeypatch.setattr(logging.Logger, "makeRecord", logging.Logger.makeRecord)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    capture = LogCapture(LogRing(str(tmp_path / "ring")))
    capture.install()
    return capture


@pytest.fixture
def logger(capture: LogCapture) -> Iterator[logging.Logger]:
    """Return a logger that does not propagate, as Celery's task loggers; its handler is a Collector."""
    logger = logging.getLogger("tests.some_library")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(Collector())
    yield logger
    logger.handlers.clear()


def records(logger: logging.Logger) -> list[Any]:
    """Return what the logger has emitted."""
    # pytest adds handlers of its own.
    (collector,) = [handler for handler in logger.handlers if isinstance(handler, Collector)]
    return collector.records


def texts(tmp_path: Path) -> list[str]:
    """Return the lines in the ring."""
    return [line.message for line in lines_in((tmp_path / "ring").read_bytes(), RUN.name)]


def test_a_library_in_a_daemon_in_its_tasks_and_in_to_thread_logs_with_the_daemon(
    logger: logging.Logger, tmp_path: Path
) -> None:
    # Given
    async def child() -> None:
        logger.info("child %d", 1)
        await asyncio.to_thread(logger.info, "thread")

    async def daemon() -> None:
        await asyncio.create_task(child())

    # When
    with RUN.active():
        asyncio.run(daemon())

    # Then
    assert [(r.daemon, r.launcher, r.token) for r in records(logger)] == [("tail.web-1", "tail", 9)] * 2
    assert logging.Formatter("%(daemon)s %(processName)s").format(records(logger)[0]) == "tail.web-1 daemon tail.web-1"
    assert texts(tmp_path) == ["child 1", "thread"]


def test_records_outside_of_daemons_have_the_attributes_too(logger: logging.Logger, tmp_path: Path) -> None:
    logger.info("outside")

    assert logging.Formatter("%(daemon)s %(token)s").format(records(logger)[0]) == "None None"
    assert (tmp_path / "ring").stat().st_size == 0


def test_an_extra_of_the_same_name_takes_precedence_and_raises_nothing(logger: logging.Logger) -> None:
    with RUN.active():
        logger.info("mine", extra={"token": "secret", "daemon": "other"})

    assert (records(logger)[0].token, records(logger)[0].daemon) == ("secret", "other")


def test_a_record_factory_of_the_app_stays_in_use(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    class OwnRecord(logging.LogRecord):
        pass

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(OwnRecord)

    # When
    try:
        with RUN.active():
            logger.info("text")
    finally:
        logging.setLogRecordFactory(before)

    # Then
    assert type(records(logger)[0]) is OwnRecord
    assert records(logger)[0].daemon == "tail.web-1"


def test_an_isolated_process_attributes_every_thread_to_its_daemon(logger: logging.Logger, capture: LogCapture) -> None:
    with capture.whole_process(RUN):
        thread = threading.Thread(target=logger.info, args=("thread",))
        thread.start()
        thread.join()

    assert records(logger)[0].daemon == "tail.web-1"


@pytest.mark.parametrize("kind", [DaemonContext, BlockingDaemonContext])
def test_the_logger_of_a_context_names_the_daemon_in_any_thread_and_the_line_of_its_caller(
    kind: Any, capture: LogCapture
) -> None:
    # Given
    ctx = kind(RUN.name, RUN.launcher, "node", RUN.token, threading.Event())
    handler = Collector()
    ctx.log.logger.addHandler(handler)

    # When
    thread = threading.Thread(target=ctx.log.warning, args=("from %s", "a thread"), kwargs={"extra": {"more": 1}})
    thread.start()
    thread.join()
    ctx.log.warning("here")
    ctx.log.logger.removeHandler(handler)

    # Then
    first, second = handler.records
    assert (first.name, first.daemon, first.getMessage(), first.more) == ("daemons.tail", RUN.name, "from a thread", 1)
    assert second.pathname == __file__


def test_what_a_daemon_prints_is_kept_by_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Installed here, because pytest replaces the streams between a fixture and its test.
    for module, name in ((logging.Logger, "makeRecord"), (sys, "stdout"), (sys, "stderr")):
        monkeypatch.setattr(module, name, getattr(module, name))
    LogCapture(LogRing(str(tmp_path / "ring"))).install()

    with RUN.active():
        print("one", "two")  # noqa: T201 - the print is under test
        print("half ", end="")  # noqa: T201
        print("line")  # noqa: T201
    print("not a daemon's")  # noqa: T201

    assert texts(tmp_path) == ["one two", "half line"]


def test_a_message_that_cannot_be_formatted_and_a_traceback_are_kept_as_far_as_possible(
    logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(logging, "raiseExceptions", False)

    # When
    with RUN.active():
        logger.info("wrong %d", "text")
        try:
            raise ValueError("the cause")
        except ValueError:
            logger.exception("failed")

    # Then
    first, second = texts(tmp_path)
    assert first == "wrong %d"
    assert second.startswith("failed\nTraceback")
    assert second.endswith("ValueError: the cause")
