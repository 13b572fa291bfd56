"""When the monitor starts and abandons recovery scanners, and when it sleeps."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from celery_daemons import Daemons, DaemonSpec, InvalidName, Launcher
from celery_daemons.domain.names import DaemonName, Epoch
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.monitor.scan import Scans
from celery_daemons.settings import Settings
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from tests.support.waiting import wait_until

#: Seconds that a thread may take to end.
SOON = 5.0


class ScansHarness:
    """The scans of one launcher on a clock that the test sets; the scanner runs until ``may_finish`` is set."""

    def __init__(self, settings: Any) -> None:
        self.now = 1000.0
        self.reports: list[Any] = []
        self.may_finish = threading.Event()
        registry: Any = {
            "tail": SimpleNamespace(name="tail", scanner=self._scanner, options=SimpleNamespace(prune=False))
        }
        store: Any = SimpleNamespace(run=self.reports.append, keys=SimpleNamespace(monitor="", scans="", journal=""))
        snapshot: Any = SimpleNamespace(specs={})
        self.scans = Scans(
            registry=registry,
            settings=settings,
            store=store,
            epoch=Epoch(1),
            snapshot=snapshot,
            tally=ClusterTally(enabled=False, snapshot=snapshot, report=print, clock=time.monotonic),
            clock=lambda: self.now,
        )

    def _scanner(self) -> list[Any]:
        self.may_finish.wait(SOON)
        return []


def test_a_scan_that_is_requested_while_one_runs_does_not_keep_the_monitor_awake() -> None:
    """The requested scan is due and cannot begin: the monitor would spin until the first scan is over."""
    # Given a scan that runs
    harness = ScansHarness(Settings(redis_url=""))
    harness.scans.run_due()

    # When
    harness.scans.request("tail")

    # Then the next scan is due when the first has ended
    assert harness.scans.next_due_at > harness.now + 1
    harness.may_finish.set()
    wait_until(lambda: harness.scans.next_due_at <= harness.now, within=SOON, because="the requested scan is due")


def test_a_scan_whose_thread_cannot_be_started_is_reported_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks invariant 2: the monitor ended with each attempt, and placed nothing."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    # Given
    harness = ScansHarness(Settings(redis_url="", scan_interval=30.0))

    # When
    with monkeypatch.context() as refused:
        refused.setattr(threading.Thread, "start", refuse)
        harness.scans.run_due()

    # Then
    (report,) = harness.reports
    assert "cannot be started: can't start new thread" in str(report.args)
    assert harness.scans.next_due_at == harness.now + 30

    # When it is due again
    harness.now += 30
    harness.may_finish.set()
    harness.scans.run_due()

    # Then
    wait_until(lambda: len(harness.reports) == 2, within=SOON, because="a thread is started")


def test_a_scan_that_ends_as_it_is_abandoned_is_reported_once() -> None:
    """Attacks: the loop and the thread of the scan both end the scan, and the loop fails."""

    class SettingsThatTakeTime:
        """Settings: while the loop reads the time limit, the scan comes to its end."""

        scan_interval = 60.0

        @property
        def scan_timeout(self) -> float:
            harness.may_finish.set()
            for thread in threading.enumerate():
                if thread.name == "scan-tail":
                    thread.join(SOON)
            return 1.0

    # Given a scan that runs for longer than it may
    harness = ScansHarness(SettingsThatTakeTime())
    harness.scans.run_due()
    harness.now += 2

    # When
    harness.scans.run_due()

    # Then
    assert len(harness.reports) == 1


class TableHarness:
    """One scan of a launcher of a real app, whose scanner the test gives; records what the scan does."""

    def __init__(self, scanner: Callable[[Launcher], Iterable[object]], **options: Any) -> None:
        daemons = Daemons(Celery(), redis_url="redis://localhost")
        self.launcher = daemons.register_launcher("feed", Launcher(_feed, **options))
        self.launcher.recovery_scanner(lambda: scanner(self.launcher))
        self.calls: list[ScriptCall[Any]] = []
        store: Any = SimpleNamespace(run=self._run, keys=Keys("test"))
        snapshot: Any = SimpleNamespace(specs={})
        self.scans = Scans(
            registry=daemons.launchers,
            settings=Settings(redis_url=""),
            store=store,
            epoch=Epoch(1),
            snapshot=snapshot,
            tally=ClusterTally(enabled=False, snapshot=snapshot, report=print, clock=time.monotonic),
            clock=time.monotonic,
        )
        self.scans.run_due()
        wait_until(lambda: self.calls and self.calls[-1].verb == "scanned", within=SOON, because="the scan is reported")

    def _run(self, call: ScriptCall[Any]) -> Any:
        self.calls.append(call)
        return ["new"] * len(json.loads(call.args[0])) if call.verb == "want" else True

    @property
    def pages(self) -> list[list[str]]:
        """The names of each page that was recorded."""
        return [[name for name, *_ in json.loads(call.args[0])] for call in self.calls if call.verb == "want"]

    @property
    def error(self) -> str:
        """What the scan reported."""
        return str(self.calls[-1].args[-1])


async def _feed(ctx: object, document: str = "", every: float = 1.0) -> None:
    """Run a daemon."""


CUSTOMERS = ("alpha", "beta", "Gamma & Sons", "delta")


def generator(feed: Launcher) -> Iterator[object]:
    for customer in CUSTOMERS:
        yield feed.spec(f"feed.{customer}")


async def asynchronous(feed: Launcher) -> AsyncIterator[object]:
    for customer in CUSTOMERS:
        yield feed.spec(f"feed.{customer}")


@pytest.mark.parametrize(
    "scanner",
    [
        generator,
        asynchronous,
        lambda feed: [feed.spec(f"feed.{customer}") for customer in CUSTOMERS],
        lambda feed: [
            DaemonSpec(name=DaemonName(f"feed.{customer}"), launcher=feed.name, args=()) for customer in CUSTOMERS
        ],
    ],
    ids=["generator", "asynchronous", "list", "records"],
)
def test_one_bad_row_of_a_table_is_reported_and_all_others_count(scanner: Any) -> None:
    """Not one of the good ones ran, not even those before it."""
    harness = TableHarness(scanner, prune=True)

    assert harness.pages == [["feed.alpha", "feed.beta", "feed.delta"]]
    assert "daemon name 'feed.Gamma & Sons' is not a valid name" in harness.error
    assert "forget" not in [call.verb for call in harness.calls]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"rate": 3}, "launcher feed does not take these arguments: got an unexpected keyword argument 'rate'"),
        ({"every": object()}, "its arguments do not serialise to JSON"),
        ({"document": "x" * 2_000_000}, "the limit is 1048576"),
    ],
)
def test_bad_arguments_of_one_row_are_reported_and_all_others_count(bad: dict[str, Any], why: str) -> None:
    harness = TableHarness(lambda feed: [feed.spec("a"), feed.spec("b", **bad), feed.spec("c", every=2)])

    assert harness.pages == [["a", "c"]]
    assert why in harness.error


def test_a_scanner_that_raises_keeps_what_it_listed_before() -> None:
    def breaks(feed: Launcher) -> Iterator[object]:
        yield feed.spec("a")
        yield [feed.spec("b"), feed.spec("c")]
        raise RuntimeError("the database is gone")

    harness = TableHarness(breaks)

    assert harness.pages == [["a", "b", "c"]]
    assert harness.error == "RuntimeError: the database is gone"


def test_many_bad_rows_are_counted() -> None:
    harness = TableHarness(lambda feed: [feed.spec(f"no {number}") for number in range(20)])

    assert harness.error.endswith("; and 17 more")


def test_large_arguments_are_recorded_in_pages_of_a_limited_size() -> None:
    """A call to Redis, and each message that follows from it, must stay far below what their readers take."""
    harness = TableHarness(lambda feed: [feed.spec(f"feed.{number}", "x" * 1_000_000) for number in range(20)])

    assert [len(page) for page in harness.pages] == [8, 8, 4]


def test_a_wrong_spec_outside_of_a_scan_raises_an_error_at_once() -> None:
    launcher = Daemons(Celery(), redis_url="redis://localhost").register_launcher("feed", Launcher(_feed))

    with pytest.raises(InvalidName):
        launcher.spec("Gamma & Sons")
