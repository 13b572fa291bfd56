"""Reasserting: a node restores its record and its daemons after Redis has lost data."""

from celery_daemons.domain.states import DaemonStatus
from celery_daemons.store import lease
from tests.store.driver import ARGUMENTS, I1, I2, N1, N2, TAIL, TTL_MS, StoreDriver, running


def test_a_node_restores_itself_its_daemons_and_their_specs(cluster: StoreDriver) -> None:
    """Attacks invariant 5."""
    cluster.started("x", "y")
    token = 1795443778122221
    cluster.lose_data()
    before = cluster.now_ms()

    generation, kept = cluster.reassert([running("x", token, version="7")])

    assert kept == [True]
    assert generation == cluster.generation()
    assert cluster.client.hget(cluster.keys.cluster, "layout") == b"1"
    assert int(cluster.client.hget(cluster.keys.cluster, "created_ms")) >= before
    assert cluster.node()["incarnation"] == I1
    assert cluster.node()["started_ms"] >= before
    assert (cluster.lease_ms() or 0) > TTL_MS / 2
    entry = cluster.entry("x")
    assert (entry["node"], entry["incarnation"], entry["token"]) == (N1, I1, str(token))
    assert (entry["status"], entry["pid"], entry["restarts"], entry["version"]) == ("running", 11, 2, "7")
    assert cluster.spec("x") == {"launcher": TAIL, "arguments": ARGUMENTS, "desired": "running", "version": "7"}
    assert cluster.held() == {"x"}
    assert (cluster.last().event, cluster.last().items) == ("reassert", (("x", str(token), "running"),))
    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).verdict == "ok"


def test_a_node_without_daemons_restores_itself(cluster: StoreDriver) -> None:
    generation, kept = cluster.reassert()

    assert kept == []
    assert generation > 0
    assert cluster.node()["status"] == "up"


def test_tokens_grow_past_every_reasserted_token(cluster: StoreDriver) -> None:
    """Even if a reasserted token is ahead of the clock of this server."""
    ahead = cluster.now_ms() * 1000 + 10**9
    cluster.reassert([running("x", ahead)])

    newer = cluster.claim("x", ahead).token

    assert newer == ahead + 1
    assert cluster.entry("x")["token"] == str(newer)


def test_a_newer_token_in_the_book_wins(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x", "y")
    cluster.join(N2)
    older = tokens["x"] - 1
    newer = tokens["y"] + 1
    before = cluster.entry("x")

    _, kept = cluster.reassert([running("x", older), running("y", newer)], node=N2)

    assert kept == [False, True]
    assert cluster.entry("x") == before
    assert (cluster.entry("y")["node"], cluster.entry("y")["token"]) == (N2, str(newer))
    assert cluster.held(N2) == {"y"}


def test_reasserting_twice_changes_only_the_generation(cluster: StoreDriver) -> None:
    cluster.started("x")
    items = [running("x", int(cluster.entry("x")["token"]), version=cluster.spec("x")["version"])]
    first = cluster.reassert(items)
    entry, spec = cluster.entry("x"), cluster.spec("x")

    second = cluster.reassert(items)

    assert second[0] > first[0]
    assert second[1] == [True]
    assert (cluster.entry("x"), cluster.spec("x")) == (entry, spec)


def test_reasserting_keeps_data_that_was_not_lost(cluster: StoreDriver) -> None:
    """After the promotion of a complete replica, start times, a drain and a stopped spec stay as they were."""
    _, tokens = cluster.started("x")
    cluster.run(lease.drain(cluster.keys, N1))
    cluster.desire("x", "stop")
    node, entry, spec = cluster.node(), cluster.entry("x"), cluster.spec("x")

    cluster.reassert([running("x", tokens["x"], version=spec["version"])])

    assert cluster.node() == node
    assert cluster.entry("x")["started_ms"] == entry["started_ms"]
    assert cluster.spec("x") == spec


def test_reasserting_keeps_a_recall_that_the_node_has_not_received(cluster: StoreDriver) -> None:
    epoch, tokens = cluster.started("x")
    cluster.recall(epoch, "x")

    cluster.reassert([running("x", tokens["x"])])

    assert cluster.entry("x")["status"] == "stopping"


def test_reasserting_does_not_restore_the_spec_of_a_forgotten_daemon(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")
    cluster.forget("x")

    assert cluster.reassert([running("x", tokens["x"])])[1] == [True]

    assert cluster.spec("x") is None
    assert cluster.entry("x")["node"] == N1


def test_a_daemon_in_back_off_is_reasserted_too(cluster: StoreDriver) -> None:
    cluster.reassert([running("x", "1795443778122221", status=DaemonStatus.BACKOFF, pid=0)])

    assert cluster.entry("x")["status"] == "backoff"


def test_reasserting_is_refused_while_another_incarnation_holds_the_node(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")
    before = cluster.contents()

    assert cluster.reassert([running("x", tokens["x"])], incarnation=I2) is None
    assert cluster.contents() == before


def test_reasserting_takes_a_node_name_whose_lease_has_ended(cluster: StoreDriver) -> None:
    cluster.join(incarnation=I2)
    cluster.end_lease()

    assert cluster.reassert(incarnation=I1) is not None
    assert cluster.node()["incarnation"] == I1
