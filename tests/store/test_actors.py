"""The journal names the actor of each change."""

from celery_daemons.client.actor import acting_as
from celery_daemons.client.blocking_client import ClusterClient
from celery_daemons.store import journal, lease
from tests.store.driver import I2, N1, N2, StoreDriver, row


def test_every_change_of_a_client_has_its_actor(cluster: StoreDriver) -> None:
    cluster.join()
    client = ClusterClient(cluster.store, vnodes=8)

    with acting_as("web:alice"):
        client.want("x", "tail", "[[], {}]")
        client.stop("x")
        client.start("x")
        client.restart("x")
        client.drain(N1)
        client.uncordon(N1)
        client.pause_rebalance()
        client.ask_rebalance()
        client.rescan()
        client.forget("x")

    asked = [entry for entry in cluster.events() if entry.event != "join"]
    assert len(asked) == 10
    assert {entry.actor for entry in asked} == {"web:alice"}


def test_the_monitor_is_its_own_actor_and_a_node_names_none(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])
    cluster.end_lease()
    cluster.sweep(epoch)

    actors = {entry.event: entry.actor for entry in cluster.events()}

    assert {event for event, actor in actors.items() if actor == "monitor"} == {"assign", "recall", "lost"}
    assert all(actors[event] is None for event in ("join", "claim", "report", "release"))


def test_an_entry_of_a_release_without_actors_is_read(cluster: StoreDriver) -> None:
    fields = {"event": "want", "node": "", "epoch": "", "cause": "spawn", "items": "[]"}
    cluster.client.xadd(cluster.keys.journal, fields)

    assert cluster.last().actor is None


def test_a_node_that_drains_by_itself_names_no_actor(cluster: StoreDriver) -> None:
    cluster.run(lease.join(cluster.keys, N2, row(I2), ttl_ms=60_000))
    cluster.run(lease.drain(cluster.keys, N2, incarnation=I2))
    cluster.run(journal.note(cluster.keys, "cannot-serve", node=N2, cause="no room"))

    assert [entry.actor for entry in cluster.events()] == [None, None, None]
