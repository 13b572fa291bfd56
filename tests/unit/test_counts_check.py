"""The monitor repairs counts that are wrong: the real scripts on in-memory Redis, virtual time."""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from celery_daemons.monitor.loop import Monitor
from celery_daemons.store import listing, specs
from celery_daemons.store.summary import summary
from tests.unit.monitor_harness import LEASE, TAIL, A, ClusterHarness, X, turn


def counts(cluster: ClusterHarness) -> dict[str, int]:
    """Return the counts that the scripts keep."""
    return cluster.store.run(summary(cluster.keys)).counts


def settled(cluster: ClusterHarness) -> tuple[Monitor, dict[str, int]]:
    """Return a monitor that has nothing left to do, and the counts then, which are right."""
    monitor = cluster.elect(A)
    for _ in range(3):
        turn(monitor)
        cluster.advance(LEASE)
    turn(monitor)
    found = counts(cluster)
    assert sum(found.values()) == 1
    return monitor, found


def delete_counts(client: Any, cluster: ClusterHarness) -> None:
    client.delete(cluster.keys.counts)


def count_too_many(client: Any, cluster: ClusterHarness) -> None:
    client.hincrby(cluster.keys.counts, "running,running,gone,tail", 7)


def replace_counts(client: Any, cluster: ClusterHarness) -> None:
    client.delete(cluster.keys.counts)
    client.set(cluster.keys.counts, "text")


@pytest.mark.parametrize("spoil", [delete_counts, count_too_many, replace_counts])
def test_a_wrong_total_is_repaired_at_the_next_check(
    cluster: ClusterHarness, caplog: pytest.LogCaptureFixture, spoil: Callable[[Any, ClusterHarness], None]
) -> None:
    """Attacks: the counts are deleted or changed by hand."""
    monitor, right = settled(cluster)
    spoil(cluster.store.client, cluster)

    with caplog.at_level(logging.WARNING, "celery_daemons.monitor.counts_check"):
        cluster.advance(LEASE)
        turn(monitor)

    assert counts(cluster) == right
    assert "counts of daemons: 1 wrong numbers" in caplog.text or "2 wrong numbers" in caplog.text


def test_records_written_by_hand_are_counted_once_a_monitor_has_read_them(cluster: ClusterHarness) -> None:
    """Attacks: a tool restores specs, entries without marks, and a daemon that needs attention, past the verbs."""
    _, right = settled(cluster)
    client = cluster.store.client
    client.hset(cluster.keys.specs, "byhand", client.hget(cluster.keys.specs, X))
    entry = msgspec.json.decode(client.hget(cluster.keys.book, X))
    client.hset(cluster.keys.book, "lonely", msgspec.json.encode({**entry, "status": "failed"}))
    client.sadd(cluster.keys.held(entry["node"]), "lonely")

    monitor = cluster.elect(A) if cluster.store.client.delete(cluster.keys.monitor) else None
    assert monitor is not None
    for _ in range(4):
        turn(monitor)
        cluster.advance(LEASE)

    found = counts(cluster)
    assert sum(count for field, count in found.items() if not field.startswith("forgotten,")) == 2
    assert sum(count for field, count in found.items() if field.startswith("forgotten,")) == 1
    assert right.keys() <= found.keys()
    assert listing.unhealthy(cluster.store) == {}


def test_right_counts_are_not_reported(cluster: ClusterHarness, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "celery_daemons.monitor.counts_check"):
        monitor, _ = settled(cluster)
        cluster.store.run(specs.record(cluster.keys, [(X, TAIL, "[[],{}]")], mode="spawn"))
        turn(monitor)

    assert "celery_daemons.monitor.counts_check" not in {record.name for record in caplog.records}
