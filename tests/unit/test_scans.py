"""When the monitor starts recovery scanners, and when it sleeps."""

import threading
from types import SimpleNamespace
from typing import Any

from celery_daemons.domain.names import Epoch
from celery_daemons.monitor.scan import Scans
from celery_daemons.settings import Settings
from tests.support.waiting import wait_until

NOW = 1000.0


def test_a_scan_that_is_requested_while_one_runs_does_not_keep_the_monitor_awake() -> None:
    """The requested scan is due and cannot begin: the monitor would spin until the first scan is over."""
    # Given a scan that runs
    finish = threading.Event()

    def scanner() -> list[Any]:
        finish.wait(5.0)
        return []

    registry: Any = {"tail": SimpleNamespace(name="tail", scanner=scanner, options=SimpleNamespace(prune=False))}
    store: Any = SimpleNamespace(run=lambda _call: True, keys=SimpleNamespace(monitor="", scans="", journal=""))
    snapshot: Any = SimpleNamespace(specs={})
    scans = Scans(
        registry=registry,
        settings=Settings(redis_url=""),
        store=store,
        epoch=Epoch(1),
        snapshot=snapshot,
        clock=lambda: NOW,
    )
    scans.run_due()

    # When
    scans.request("tail")

    # Then the next scan is due when the first has ended
    assert scans.next_due_at > NOW + 1
    finish.set()
    wait_until(lambda: scans.next_due_at <= NOW, within=5.0, because="the scan has ended and another was requested")
