"""The journal: its contents, following it, and its cap."""

import re
import threading
import time

import pytest

from celery_daemons.domain.names import NodeName
from celery_daemons.store import journal, lease
from celery_daemons.store.script import ScriptCall
from tests.store.driver import I1, N1, TTL_MS, StoreDriver


def test_the_events_of_a_run_are_in_order(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.desire("x", "stop")
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])
    cluster.run(lease.leave(cluster.keys, N1, I1))
    cluster.run(lease.resign(cluster.keys, epoch, cause="done"))

    events = " ".join(entry.event for entry in cluster.events())

    assert events == "join lead want assign claim report stop recall release leave resign"


def test_an_entry_has_event_time_node_epoch_and_cause(cluster: StoreDriver) -> None:
    before = cluster.now_ms()
    epoch, tokens = cluster.started("x")

    (entry,) = [entry for entry in cluster.events() if entry.event == "assign"]

    assert before <= entry.at_ms <= cluster.now_ms()
    assert (entry.node, entry.epoch, entry.cause) == (N1, epoch, None)
    assert entry.items == (("x", str(tokens["x"]), "test"),)


def test_an_event_can_be_noted_without_a_change(cluster: StoreDriver) -> None:
    cluster.run(journal.note(cluster.keys, "name-taken", node="n1", cause="\udcff why", items=[("x", "1", "c")]))

    (entry,) = cluster.events()
    assert (entry.event, entry.node, entry.epoch, entry.cause) == ("name-taken", "n1", None, "? why")
    assert entry.items == (("x", "1", "c"),)


def test_a_follower_continues_from_its_position(cluster: StoreDriver) -> None:
    assert journal.last_id(cluster.store) == "0-0"
    assert journal.oldest_id(cluster.store) is None
    cluster.join()
    position = journal.last_id(cluster.store)
    assert journal.oldest_id(cluster.store) == position

    assert journal.follow(cluster.store, position, block_ms=0) == []
    cluster.want("x")
    cluster.want("y")

    entries = journal.follow(cluster.store, position, block_ms=0)
    assert [entry.items[0][0] for entry in entries] == ["x", "y"]
    assert len(journal.follow(cluster.store, position, block_ms=0, count=1)) == 1
    assert journal.follow(cluster.store, entries[-1].id, block_ms=0) == []


def test_a_follower_that_waits_is_woken_by_the_next_entry(cluster: StoreDriver) -> None:
    timer = threading.Timer(0.05, lambda: cluster.want("x"))
    timer.start()
    began = time.monotonic()

    entries = journal.follow(cluster.store, "0-0", block_ms=3000)

    timer.join()
    assert [entry.event for entry in entries] == ["want"]
    assert time.monotonic() - began < 2


def test_a_follower_waits_no_longer_than_its_timeout(cluster: StoreDriver) -> None:
    began = time.monotonic()

    assert journal.follow(cluster.store, "0-0", block_ms=50) == []

    assert time.monotonic() - began < 1


def test_the_newest_entries_come_oldest_first(cluster: StoreDriver) -> None:
    for name in "abcd":
        cluster.want(name)

    assert [entry.items[0][0] for entry in journal.newest(cluster.store, 2)] == ["c", "d"]


def test_positions_compare_by_time_and_then_by_number() -> None:
    assert sorted(["1000-0", "5-10", "40-0", "5-2", "0-0"], key=journal.position) == [
        "0-0",
        "5-2",
        "5-10",
        "40-0",
        "1000-0",
    ]
    assert journal.position("7") == (7, 0)


def test_a_corrupt_entry_can_still_be_read(cluster: StoreDriver) -> None:
    for fields in ({"event": "x", "items": "{"}, {"items": "[1]"}, {"epoch": "²", "items": '[["a",null]]'}, {"y": "z"}):
        cluster.client.xadd(cluster.keys.journal, fields)

    assert [entry.items for entry in cluster.events()] == [()] * 4
    assert [entry.epoch for entry in cluster.events()] == [None] * 4


@pytest.mark.timeout(60)
def test_the_journal_is_capped(cluster: StoreDriver) -> None:
    """Horde #56: a log without a cap grows forever."""
    note: ScriptCall[int] = journal.note(cluster.keys, "test")
    (most,) = re.findall(r"JOURNAL_ENTRIES = (\d+)", note.script.source)
    cluster.run(note)
    for _ in range(int(most) // 100 + 5):
        pipe = cluster.client.pipeline(transaction=False)
        for _ in range(100):
            pipe.evalsha(note.script.sha, len(note.keys), *note.keys, *note.args)
        pipe.execute()

    assert int(most) <= cluster.client.xlen(cluster.keys.journal) < int(most) + 200


def test_heartbeats_are_not_journalled(cluster: StoreDriver) -> None:
    cluster.join(NodeName("n"))
    entries = len(cluster.events())

    cluster.run(lease.beat(cluster.keys, NodeName("n"), I1, ttl_ms=TTL_MS))
    cluster.run(lease.beat(cluster.keys, NodeName("n"), I1, ttl_ms=TTL_MS))

    assert len(cluster.events()) == entries
