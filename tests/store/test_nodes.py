"""Joining, beating, draining and leaving."""

import pytest

from celery_daemons.domain.names import Incarnation
from celery_daemons.store import book, journal, lease
from tests.store.driver import I1, I2, N1, N2, TTL_MS, StoreDriver, row
from tests.support.waiting import wait_until


def test_a_node_joins_under_a_lease_that_runs(cluster: StoreDriver) -> None:
    before = cluster.now_ms()

    joined = cluster.join()

    record = cluster.node()
    assert record["incarnation"] == I1
    assert record["weight"] == 1.5
    assert before <= record["started_ms"] <= cluster.now_ms()
    assert 0 < (cluster.lease_ms() or 0) <= TTL_MS
    assert joined.generation == cluster.generation() > 0
    assert int(joined.created_ms) >= before
    assert (cluster.last().event, cluster.last().node, cluster.last().cause) == ("join", N1, I1)


def test_the_first_node_creates_the_cluster_and_the_next_one_finds_it(cluster: StoreDriver) -> None:
    first = cluster.join(N1)
    second = cluster.join(N2)

    assert cluster.client.hget(cluster.keys.cluster, "layout") == b"1"
    assert first.created_ms == second.created_ms


def test_joining_again_as_the_same_incarnation_is_no_error(cluster: StoreDriver) -> None:
    first = cluster.join()
    second = cluster.join()

    assert second.generation > first.generation
    assert cluster.client.hlen(cluster.keys.nodes) == 1


def test_a_node_name_is_taken_until_its_lease_ends(cluster: StoreDriver) -> None:
    """Celery #2938: two workers of one name in a rolling deploy."""
    cluster.join()
    before = cluster.contents()

    taken = cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS))

    assert isinstance(taken, lease.Taken)
    assert 0 < taken.left_ms <= TTL_MS
    assert taken.incarnation == I1
    assert cluster.contents() == before


def test_a_short_lease_ends_by_itself_and_frees_the_name(cluster: StoreDriver) -> None:
    cluster.run(lease.join(cluster.keys, N1, row(I1), ttl_ms=40))

    joined = wait_until(
        lambda: isinstance(cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS)), lease.Joined),
        within=5,
        because="the lease was of 40 ms",
    )

    assert joined
    assert cluster.node()["incarnation"] == I2


def test_a_worker_that_knows_its_last_agent_to_be_dead_joins_at_once(cluster: StoreDriver) -> None:
    _, tokens = cluster.started("x")

    joined = cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=I1))

    assert isinstance(joined, lease.Joined)
    assert cluster.held() == {"x"}
    assert cluster.claim("x", tokens["x"], incarnation=I2).token > tokens["x"]


def test_naming_a_wrong_incarnation_as_dead_does_not_free_the_name(cluster: StoreDriver) -> None:
    cluster.join()

    for previous in (Incarnation("i0"), Incarnation("")):
        answer = cluster.run(lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, previous=previous))
        assert isinstance(answer, lease.Taken)


def test_a_generation_never_repeats_even_after_a_loss_of_data(cluster: StoreDriver) -> None:
    before = cluster.join().generation

    cluster.lose_data()

    assert cluster.join().generation > before


def test_a_beat_renews_the_lease(cluster: StoreDriver) -> None:
    joined = cluster.join()
    cluster.client.zadd(cluster.keys.leases, {N1: cluster.now_ms() + 5})

    beat = cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS))

    assert beat == lease.Beat("ok", joined.generation, joined.created_ms, led=False)
    assert (cluster.lease_ms() or 0) > TTL_MS / 2


def test_a_beat_reports_whether_a_monitor_leads_and_the_generation(cluster: StoreDriver) -> None:
    joined = cluster.join()
    epoch = cluster.lead()
    cluster.want("x")
    cluster.assign(epoch, "x")

    beat = cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS))

    assert beat.led
    assert beat.generation == joined.generation + 1


def test_a_beat_renews_a_lease_that_ended_but_was_not_swept(cluster: StoreDriver) -> None:
    cluster.join()
    cluster.end_lease()

    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).verdict == "ok"


def test_a_beat_of_another_incarnation_is_fenced_and_renews_nothing(cluster: StoreDriver) -> None:
    cluster.join()
    before = cluster.contents()

    assert cluster.run(lease.beat(cluster.keys, N1, I2, ttl_ms=TTL_MS)).verdict == "fenced"
    assert cluster.contents() == before


def test_a_beat_detects_a_loss_of_all_data(cluster: StoreDriver) -> None:
    cluster.join()
    cluster.lose_data()

    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).verdict == "data_lost"
    assert cluster.contents() == {}


def test_a_beat_detects_the_loss_after_another_node_has_reasserted(cluster: StoreDriver) -> None:
    """The first node to notice creates the cluster key again; the second must still detect its lost record."""
    cluster.join(N1)
    cluster.join(N2)
    cluster.lose_data()

    cluster.reassert(node=N1)

    assert cluster.run(lease.beat(cluster.keys, N2, I1, ttl_ms=TTL_MS)).verdict == "data_lost"


def test_a_node_drains_and_takes_daemons_again(cluster: StoreDriver) -> None:
    cluster.join()

    assert cluster.run(lease.drain(cluster.keys, N1))
    assert cluster.node()["status"] == "draining"
    assert (cluster.last().event, cluster.last().node) == ("drain", N1)
    assert cluster.run(lease.drain(cluster.keys, N1, on=False))
    assert cluster.node()["status"] == "up"
    assert cluster.last().event == "uncordon"


def test_draining_twice_is_journalled_once(cluster: StoreDriver) -> None:
    cluster.join()

    assert cluster.run(lease.drain(cluster.keys, N1))
    before = cluster.contents()
    assert cluster.run(lease.drain(cluster.keys, N1))

    assert cluster.contents() == before


@pytest.mark.parametrize("incarnation", [None, I2])
def test_an_unknown_node_or_incarnation_cannot_be_drained(
    cluster: StoreDriver, incarnation: Incarnation | None
) -> None:
    cluster.join(N1)
    before = cluster.contents()
    other = N1 if incarnation else N2

    assert not cluster.run(lease.drain(cluster.keys, other, incarnation=incarnation))
    assert cluster.contents() == before


def test_a_node_without_daemons_leaves_no_keys_behind(cluster: StoreDriver) -> None:
    """Celery #6089: dead workers leave keys behind."""
    cluster.join(N1)
    cluster.join(N2)

    assert cluster.run(lease.leave(cluster.keys, N1, I1)) == 0

    assert cluster.node(N1) is None
    assert cluster.lease_ms(N1) is None
    assert not any(N1 in key for key in cluster.contents())
    assert (cluster.last().event, cluster.last().node, cluster.last().cause) == ("leave", N1, I1)


def test_a_node_that_holds_daemons_cannot_leave(cluster: StoreDriver) -> None:
    cluster.started("x", "y")
    before = cluster.contents()

    assert cluster.run(lease.leave(cluster.keys, N1, I1)) == 2
    assert cluster.contents() == before


def test_leaving_again_or_as_another_incarnation_changes_nothing(cluster: StoreDriver) -> None:
    cluster.join()
    before = cluster.contents()
    assert cluster.run(lease.leave(cluster.keys, N1, I2)) == -1
    assert cluster.contents() == before

    cluster.run(lease.leave(cluster.keys, N1, I1))
    before = cluster.contents()
    assert cluster.run(lease.leave(cluster.keys, N1, I1)) == -1
    assert cluster.contents() == before


def test_a_node_that_cannot_start_processes_is_assigned_nothing_until_it_can(cluster: StoreDriver) -> None:
    """Attacks invariant 2: what is assigned to such a node does not run."""
    # Given
    cluster.join()
    epoch = cluster.lead()
    cluster.want("x")

    # When the node reports its problem
    assert cluster.run(lease.serving(cluster.keys, N1, I1, "no process can be forked"))

    # Then it is recorded and journalled once, and no daemon is assigned there
    assert cluster.run(lease.serving(cluster.keys, N1, I1, "no process can be forked"))
    assert cluster.node()["problem"] == "no process can be forked"
    noted = [one.cause for one in journal.newest(cluster.store, 100) if one.event == "cannot-serve"]
    assert noted == ["no process can be forked"]
    assert cluster.assign(epoch, "x") is book.NotAssigned.NODE

    # When it can again, then one is
    assert cluster.run(lease.serving(cluster.keys, N1, I1, ""))
    assert cluster.last().event == "serves-again"
    assert isinstance(cluster.assign(epoch, "x"), book.Dispatch)


def test_a_node_cannot_report_a_problem_of_its_successor(cluster: StoreDriver) -> None:
    """Attacks invariant 3: a fenced node reports nothing."""
    cluster.join(incarnation=I2)

    assert not cluster.run(lease.serving(cluster.keys, N1, I1, "no process can be forked"))
    assert not cluster.node().get("problem")
