"""Requests that arrive after the end of what they are about: they bring neither a daemon nor a node back."""

import pytest

from celery_daemons.errors import LeaseLost
from celery_daemons.store import lease, queries
from tests.store.driver import I1, I2, N1, TTL_MS, StoreDriver, row, running


def test_a_late_reassertion_does_not_bring_a_forgotten_daemon_back(cluster: StoreDriver) -> None:
    """Attacks invariant 9: the list of what runs was made before the daemon was forgotten, stopped and released."""
    # Given
    epoch, tokens = cluster.started("x")
    late = [running("x", tokens["x"])]
    cluster.forget("x")
    cluster.recall(epoch, "x")
    assert cluster.release("x", tokens["x"])

    # When
    _, known = cluster.reassert(late)

    # Then
    assert known == [False]
    assert cluster.spec("x") is None
    assert cluster.entry("x") is None
    assert cluster.held() == set()


def test_a_forgotten_daemon_that_is_spawned_again_is_restored_after_its_spec_and_entry_were_lost(
    cluster: StoreDriver,
) -> None:
    """Attacks invariant 5: a daemon that was forgotten earlier must not be lost when it runs again."""
    # Given
    epoch, tokens = cluster.started("x")
    cluster.forget("x")
    cluster.recall(epoch, "x")
    cluster.release("x", tokens["x"])
    again = cluster.started_again(epoch, "x")

    # When a replica is promoted that lacks the last writes
    cluster.client.hdel(cluster.keys.specs, "x")
    cluster.client.hdel(cluster.keys.book, "x")

    # Then
    assert cluster.reassert([running("x", again)])[1] == [True]
    assert cluster.spec("x")["desired"] == "running"
    assert cluster.entry("x")["node"] == N1


def test_a_late_join_of_an_incarnation_that_has_left_registers_nothing(cluster: StoreDriver) -> None:
    """Attacks invariant 2: daemons would be assigned to an agent that is gone, until its lease ends."""
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))

    with pytest.raises(LeaseLost, match="incarnation i1 has left the cluster"):
        cluster.run(lease.join(cluster.keys, N1, row(), ttl_ms=TTL_MS))
    assert cluster.reassert() is None

    assert cluster.node() is None
    assert cluster.lease_ms() is None
    assert set(queries.gone(cluster.store)) == {N1}


def test_a_late_join_is_refused_although_another_incarnation_has_joined_and_left_since(cluster: StoreDriver) -> None:
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))
    cluster.join(incarnation=I2)
    cluster.run(lease.leave(cluster.keys, N1, I2))

    with pytest.raises(LeaseLost):
        cluster.run(lease.join(cluster.keys, N1, row(), ttl_ms=TTL_MS))
    assert cluster.node() is None


def test_a_late_candidacy_of_an_incarnation_that_has_left_wins_no_election(cluster: StoreDriver) -> None:
    """Attacks invariant 2: no monitor would lead until that lease ends."""
    cluster.join()
    cluster.run(lease.leave(cluster.keys, N1, I1))

    assert cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS)) is None
    assert queries.leader(cluster.store) is None


def test_old_entries_about_what_has_ended_are_removed_once_there_are_many(cluster: StoreDriver) -> None:
    """Attacks invariant 6."""
    # Given entries of long ago
    ended = cluster.keys.ended
    cluster.client.zadd(ended, {f"daemon:old.{number}": number for number in range(1, 1000)})

    # When few are added, they stay; one more than a thousand removes the old ones
    cluster.want("a", "b")
    cluster.forget("a")
    assert cluster.client.zcard(ended) == 1000
    cluster.forget("b")

    # Then
    assert sorted(cluster.client.zrange(ended, 0, -1)) == [b"daemon:a", b"daemon:b"]
