"""Verbs whose caller measures leases by its own clock, because Redis's clock may be set."""

from typing import Any, cast

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from celery_daemons.domain.names import Epoch
from celery_daemons.errors import StoreUnavailable
from celery_daemons.store import book, lease, queries
from celery_daemons.store.connection import Store
from tests.store.driver import I1, I2, N1, N2, TTL_MS, StoreDriver, row


def lease_end(cluster: StoreDriver) -> int:
    """Return the end of the lease of node 1 as Redis has it."""
    return int(cluster.client.zscore(cluster.keys.leases, N1))


def test_a_sweep_of_a_lease_that_the_monitor_has_measured_ignores_redis_clock(cluster: StoreDriver) -> None:
    epoch, _ = cluster.started("tail.a")

    swept = cluster.run(book.sweep(cluster.keys, epoch, N1, limit=10, ended_ms=lease_end(cluster)))

    assert swept.names == ("tail.a",)
    assert cluster.node() is None


@pytest.mark.parametrize("left_ms", [-5000, 5000])
def test_a_lease_that_was_renewed_since_it_was_measured_is_not_swept(cluster: StoreDriver, left_ms: int) -> None:
    """Attacks invariant 1: by Redis's clock, which was set, the renewed lease may have ended."""
    epoch, _ = cluster.started("tail.a")
    measured = lease_end(cluster)
    cluster.client.zadd(cluster.keys.leases, {N1: cluster.now_ms() + left_ms})

    swept = cluster.run(book.sweep(cluster.keys, epoch, N1, limit=10, ended_ms=measured))

    assert swept.alive
    assert cluster.node() is not None


def join(cluster: StoreDriver, ended_ms: int) -> lease.Joined | lease.Taken:
    """Join node 1 as another incarnation, which has measured that a lease has ended, 0 for none."""
    joined: lease.Joined | lease.Taken = cluster.run(
        lease.join(cluster.keys, N1, row(I2), ttl_ms=TTL_MS, ended_ms=ended_ms)
    )
    return joined


def test_a_name_is_taken_until_its_lease_has_ended_by_the_clock_of_the_caller(cluster: StoreDriver) -> None:
    """Attacks invariants 1 and 4: by Redis's clock, which was set forward, the lease has ended."""
    cluster.join()
    cluster.end_lease()

    answer = join(cluster, 0)
    assert isinstance(answer, lease.Taken)
    assert (answer.incarnation, answer.end_ms, answer.length_ms) == (I1, lease_end(cluster), TTL_MS)
    assert answer.left_ms < 0
    assert isinstance(join(cluster, answer.end_ms), lease.Joined)


def test_a_name_whose_lease_has_ended_by_the_clock_of_the_caller_is_free_whatever_redis_clock_says(
    cluster: StoreDriver,
) -> None:
    """Attacks invariant 2: by Redis's clock, which was set back, the lease runs for another hour."""
    cluster.join()
    assert isinstance(join(cluster, 1), lease.Taken)
    assert isinstance(join(cluster, lease_end(cluster)), lease.Joined)


def test_a_leader_whose_lease_ends_later_than_it_can_is_replaced(cluster: StoreDriver) -> None:
    """Attacks invariant 2: Redis's clock was set back, and the leader is dead."""
    cluster.join()
    first = cluster.lead()
    cluster.client.pexpire(cluster.keys.monitor, 3_600_000)
    assert not cluster.run(queries.overview(cluster.keys)).led
    assert not cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).led

    assert cluster.lead(N2) > first
    assert cluster.run(queries.overview(cluster.keys)).led


def test_a_leader_that_lives_renews_a_lease_that_ends_too_late(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    cluster.client.pexpire(cluster.keys.monitor, 3_600_000)

    assert cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS, epoch=epoch)) == epoch
    assert cluster.client.pttl(cluster.keys.monitor) <= TTL_MS


def test_a_key_of_another_type_in_place_of_the_leader_counts_as_free(cluster: StoreDriver) -> None:
    cluster.join()
    epoch = cluster.lead()
    cluster.client.delete(cluster.keys.monitor)
    cluster.client.rpush(cluster.keys.monitor, "rubbish")
    assert cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS, epoch=epoch)) is None
    assert not cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).led

    assert cluster.lead() > epoch


def test_the_longest_lease_of_the_registered_nodes_is_known_to_all(cluster: StoreDriver) -> None:
    cluster.join()
    joined = cluster.run(lease.join(cluster.keys, N2, row(I2), ttl_ms=3 * TTL_MS))
    assert joined.longest_lease_ms == 3 * TTL_MS
    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).longest_lease_ms == 3 * TTL_MS

    cluster.run(lease.leave(cluster.keys, N2, I2))
    assert cluster.run(lease.beat(cluster.keys, N1, I1, ttl_ms=TTL_MS)).longest_lease_ms == TTL_MS


def test_a_lease_that_a_node_remembers_is_waited_for_until_the_server_is_confirmed(cluster: StoreDriver) -> None:
    call = book.reassert(cluster.keys, N1, row(), [], ttl_ms=TTL_MS, server="s", longest_ms=3 * TTL_MS)
    cluster.run(call)
    assert cluster.run(queries.overview(cluster.keys)).longest_lease_ms == 3 * TTL_MS

    epoch: Epoch = cluster.lead()
    cluster.confirm(epoch, "s")
    assert cluster.run(queries.overview(cluster.keys)).longest_lease_ms == TTL_MS


def test_a_node_on_another_server_takes_the_confirmation_back(cluster: StoreDriver) -> None:
    """Attacks invariant 5: the confirmed server may have the data again, without what was written there last."""
    cluster.join()
    epoch = cluster.lead()
    for call in (
        book.reassert(cluster.keys, N1, row(), [], ttl_ms=TTL_MS, server="b"),
        lease.join(cluster.keys, N1, row(), ttl_ms=TTL_MS, server="b"),
    ):
        cluster.confirm(epoch, "a")
        cluster.run(call)
        assert cluster.run(queries.overview(cluster.keys)).server == ""


def test_a_replica_that_refuses_a_script_as_redis_6_does_is_reported_as_one(cluster: StoreDriver) -> None:
    """Redis before 7 reports it as an error of the script, which the client does not recognise."""
    message = (
        "Error running script (call to f_738ac6bd): @user_script:12: @user_script: 12: "
        "-READONLY You can't write against a read only replica."
    )
    refusing = _Refusing(ResponseError(message))
    store = Store("redis://double", cluster.keys, client=cast("Any", refusing))

    with pytest.raises(StoreUnavailable, match="is a read-only replica"):
        store.run(lease.resign(cluster.keys, Epoch(1), cause="test"))

    assert refusing.disconnected


@pytest.mark.parametrize(
    ("error", "reconnects"),
    [
        (ResponseError("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."), True),
        (ResponseError("words of a release that nobody has seen yet"), True),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), False),
    ],
    ids=["no primary", "unknown", "full"],
)
def test_the_next_call_reconnects_after_any_refusal_but_for_lack_of_memory(
    cluster: StoreDriver, error: ResponseError, reconnects: bool
) -> None:
    """Attacks invariant 2: a process that keeps its connection to a demoted primary never finds the new one."""
    refusing = _Refusing(error)
    store = Store("redis://double", cluster.keys, client=cast("Any", refusing))

    with pytest.raises(StoreUnavailable):
        store.run(lease.resign(cluster.keys, Epoch(1), cause="test"))

    assert refusing.disconnected == reconnects


class _Refusing:
    """A client whose server refuses every command."""

    def __init__(self, error: ResponseError) -> None:
        self.error = error
        self.connection_pool = self
        self.disconnected = False

    def execute_command(self, *_: object) -> None:
        """Refuse."""
        raise self.error

    def disconnect(self, *, inuse_connections: bool) -> None:
        """Note that the connections were closed."""
        assert not inuse_connections
        self.disconnected = True
