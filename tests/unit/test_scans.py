"""When the monitor starts and abandons recovery scanners, and when it sleeps."""

import threading
from types import SimpleNamespace
from typing import Any

from celery_daemons.domain.names import Epoch
from celery_daemons.monitor.scan import Scans
from celery_daemons.settings import Settings
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
