"""The monitor's verbs for daemons: assign, recall, park."""

from collections.abc import Callable
from typing import Any

import pytest

from celery_daemons.domain.names import Epoch, Token
from celery_daemons.domain.states import Outcome
from celery_daemons.errors import LeaseLost
from celery_daemons.store import book, lease
from tests.store.driver import I1, I2, N1, N2, TAIL, StoreDriver, names


def test_an_assignment_has_a_token_and_raises_the_generation(cluster: StoreDriver) -> None:
    generation = cluster.join().generation
    epoch = cluster.lead()
    cluster.want("x")

    dispatch = cluster.assign(epoch, "x")

    assert isinstance(dispatch, book.Dispatch)
    assert dispatch.generation == cluster.generation() == generation + 1
    (token,) = dispatch.tokens
    assert token > epoch > 10**15
    assert cluster.entry("x") == {
        "status": "assigned",
        "node": N1,
        "incarnation": I1,
        "token": str(token),
        "launcher": TAIL,
        "version": cluster.spec("x")["version"],
        "why": "test",
    }
    assert cluster.held() == {"x"}
    assert (cluster.last().event, cluster.last().node, cluster.last().epoch) == ("assign", N1, epoch)
    assert cluster.last().items == (("x", str(token), "test"),)


def test_placed_unknown_and_stopped_daemons_are_not_assigned(cluster: StoreDriver) -> None:
    """Horde #207: one process becomes eight."""
    epoch, _ = cluster.started("placed")
    cluster.join(N2)
    cluster.want("stopped")
    cluster.desire("stopped", "stop")
    before = cluster.contents()

    dispatch = cluster.assign(epoch, "placed", "unknown", "stopped", node=N2)

    assert isinstance(dispatch, book.Dispatch)
    assert dispatch.tokens == (0, 0, 0)
    after = cluster.contents()
    for contents in (before, after):
        del contents[cluster.keys.clock]
    assert after == before


def test_a_name_twice_in_one_batch_is_assigned_once(cluster: StoreDriver) -> None:
    cluster.join()
    epoch = cluster.lead()
    cluster.want("x")

    dispatch = cluster.assign(epoch, "x", "x")

    assert isinstance(dispatch, book.Dispatch)
    assert dispatch.tokens[0]
    assert not dispatch.tokens[1]


def test_repeating_an_assignment_after_a_lost_reply_changes_nothing(cluster: StoreDriver) -> None:
    """The repeated call refuses the placed daemon; the node learns of the assignment from the generation."""
    cluster.join()
    epoch = cluster.lead()
    cluster.want("x")
    first = cluster.assign(epoch, "x")
    entry = cluster.entry("x")

    again = cluster.assign(epoch, "x")

    assert isinstance(first, book.Dispatch)
    assert again == book.Dispatch(first.generation, (Token(0),))
    assert cluster.entry("x") == entry


@pytest.mark.parametrize("status", ["draining", "gone", "another incarnation"])
def test_a_node_that_is_not_up_is_assigned_nothing(cluster: StoreDriver, status: str) -> None:
    cluster.join(incarnation=I2 if status == "another incarnation" else I1)
    epoch = cluster.lead()
    cluster.want("x")
    if status == "draining":
        cluster.run(lease.drain(cluster.keys, N1))
    elif status == "gone":
        cluster.run(lease.leave(cluster.keys, N1, I1))
    before = cluster.contents()

    assert cluster.assign(epoch, "x") is book.NotAssigned.NODE
    assert cluster.contents() == before


def test_an_assignment_keeps_the_daemons_restarts_and_error(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.release("x", tokens["x"], Outcome.FAILED, restarts=5, error="boom")

    cluster.assign(epoch, "x")

    assert cluster.entry("x")["restarts"] == 5
    assert cluster.entry("x")["error"] == "boom"


def test_a_recalled_daemon_is_stopping_and_the_generation_grows(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    generation = cluster.generation()

    dispatch = cluster.recall(epoch, "x")

    assert dispatch == book.Dispatch(generation + 1, (tokens["x"],))
    assert cluster.entry("x")["status"] == "stopping"
    assert cluster.entry("x")["node"] == N1
    assert (cluster.last().event, cluster.last().items) == ("recall", (("x", str(tokens["x"]), "test"),))


def test_stopping_misplaced_and_unknown_daemons_are_not_recalled(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("x", "y")
    cluster.recall(epoch, "x")
    before = cluster.contents()

    assert cluster.recall(epoch, "x").tokens == (0,)
    assert cluster.recall(epoch, "y", node=N2).tokens == (0,)
    assert cluster.recall(epoch, "unknown").tokens == (0,)
    assert cluster.contents() == before


def test_a_parked_daemon_has_the_reason(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.want("x")

    assert cluster.run(book.park(cluster.keys, epoch, [(names(["x"])[0], "no node is up")])) == 1

    assert cluster.entry("x") == {"status": "unplaceable", "launcher": TAIL, "error": "no node is up", "token": "0"}
    assert (cluster.last().event, cluster.last().items) == ("park", (("x", "0", "no node is up"),))


def test_parking_again_for_the_same_reason_changes_nothing(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.want("x")
    items = [(names(["x"])[0], "no node is up")]
    cluster.run(book.park(cluster.keys, epoch, items))
    before = cluster.contents()

    assert cluster.run(book.park(cluster.keys, epoch, items)) == 0
    assert cluster.contents() == before


def test_placed_stopped_and_unknown_daemons_are_not_parked(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("placed")
    cluster.want("stopped")
    cluster.desire("stopped", "stop")
    before = cluster.contents()

    items = [(name, "no node is up") for name in names(["placed", "stopped", "unknown"])]
    assert cluster.run(book.park(cluster.keys, epoch, items)) == 0
    assert cluster.contents() == before


def test_an_assignment_clears_the_reason_of_a_parked_daemon(cluster: StoreDriver) -> None:
    cluster.join()
    epoch = cluster.lead()
    cluster.want("x")
    cluster.run(book.park(cluster.keys, epoch, [(names(["x"])[0], "no node is up")]))

    cluster.assign(epoch, "x")

    assert "error" not in cluster.entry("x")


MONITOR_VERBS: dict[str, Callable[[StoreDriver, Epoch], Any]] = {
    "assign": lambda cluster, epoch: cluster.assign(epoch, "free"),
    "recall": lambda cluster, epoch: cluster.recall(epoch, "x"),
    "park": lambda cluster, epoch: cluster.run(book.park(cluster.keys, epoch, [(names(["free"])[0], "why")])),
    "sweep": lambda cluster, epoch: cluster.sweep(epoch),
}


@pytest.mark.parametrize("verb", MONITOR_VERBS)
@pytest.mark.parametrize("now", ["another leads", "no monitor leads"])
def test_a_deposed_monitor_changes_nothing(cluster: StoreDriver, verb: str, now: str) -> None:
    """Attacks invariant 3: a monitor that was paused past its lease continues."""
    old, _ = cluster.started("x")
    cluster.want("free")
    cluster.end_lease()
    cluster.depose()
    if now == "no monitor leads":
        cluster.client.delete(cluster.keys.monitor)
    before = cluster.contents()

    with pytest.raises(LeaseLost, match=f"epoch {old} is over"):
        MONITOR_VERBS[verb](cluster, old)

    assert cluster.contents() == before


@pytest.mark.parametrize("verb", ["assign", "recall", "park"])
def test_an_empty_batch_changes_nothing(cluster: StoreDriver, verb: str) -> None:
    epoch, _ = cluster.started("x")
    entries = len(cluster.events())
    generation = cluster.generation()

    if verb == "assign":
        assert cluster.assign(epoch) == book.Dispatch(generation, ())
    elif verb == "recall":
        assert cluster.recall(epoch) == book.Dispatch(generation, ())
    else:
        assert cluster.run(book.park(cluster.keys, epoch, [])) == 0

    assert len(cluster.events()) == entries
