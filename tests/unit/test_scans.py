"""When the monitor attends to recovery scanners."""

import threading
import time
from types import SimpleNamespace
from typing import Any

from celery_daemons.domain.names import Epoch
from celery_daemons.monitor.scan import Scans
from celery_daemons.settings import Settings


def test_a_scan_that_is_asked_for_while_one_runs_does_not_keep_the_monitor_awake() -> None:
    """It is due, and cannot begin: the monitor would look again without a pause until the first is over."""
    let_go = threading.Event()

    def scanner() -> list[Any]:
        let_go.wait(5.0)
        return []

    registry: Any = {"tail": SimpleNamespace(name="tail", scanner=scanner, options=SimpleNamespace(prune=False))}
    store: Any = SimpleNamespace(run=lambda _call: True, keys=SimpleNamespace(monitor="", scans="", journal=""))
    scans = Scans(registry, Settings(redis_url=""), store, Epoch(1), dict)
    scans.attend()

    scans.request("tail")

    assert scans.next_due > time.monotonic() + 1
    let_go.set()
    scans._threads["tail"].join(5.0)
    assert scans.next_due <= time.monotonic()
