"""The monitor's lease and its epoch."""

import pytest

from celery_daemons.domain.names import Epoch
from celery_daemons.domain.records import Leader
from celery_daemons.errors import LeaseLost
from celery_daemons.store import lease, queries
from tests.store.driver import I1, I2, N1, N2, TTL_MS, StoreDriver
from tests.support.waiting import wait_until


def test_a_candidate_is_elected_while_nobody_leads(cluster: StoreDriver) -> None:
    epoch = cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS))

    assert queries.leader(cluster.store) == Leader(node=N1, epoch=epoch)
    assert 0 < cluster.client.pttl(cluster.keys.monitor) <= TTL_MS
    assert (cluster.last().event, cluster.last().node, cluster.last().epoch) == ("lead", N1, epoch)


def test_no_other_candidate_is_elected_while_a_lease_runs(cluster: StoreDriver) -> None:
    cluster.lead()
    before = cluster.contents()

    assert cluster.run(lease.campaign(cluster.keys, N2, I2, ttl_ms=TTL_MS)) is None
    assert cluster.contents() == before


def test_a_lease_is_renewed_under_its_epoch_and_not_journalled(cluster: StoreDriver) -> None:
    epoch = cluster.lead()
    entries = len(cluster.events())
    cluster.client.pexpire(cluster.keys.monitor, 1000)

    assert cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS, epoch=epoch)) == epoch
    assert cluster.client.pttl(cluster.keys.monitor) > 1000
    assert len(cluster.events()) == entries


def test_a_renewal_under_an_epoch_that_is_over_is_refused(cluster: StoreDriver) -> None:
    """Redbeat #127: a lock is extended without a check of its owner."""
    old = cluster.lead()
    cluster.depose()
    before = cluster.contents()

    assert cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS, epoch=old)) is None
    assert cluster.contents() == before


def test_an_epoch_that_ended_cannot_be_resumed(cluster: StoreDriver) -> None:
    old = cluster.lead()
    cluster.client.delete(cluster.keys.monitor)

    assert cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=TTL_MS, epoch=old)) is None
    assert queries.leader(cluster.store) is None


def test_the_lease_of_a_monitor_that_died_ends(cluster: StoreDriver) -> None:
    """Redbeat #92: twenty-five minutes without a leader after a crash."""
    first = cluster.run(lease.campaign(cluster.keys, N1, I1, ttl_ms=40))

    second = wait_until(
        lambda: cluster.run(lease.campaign(cluster.keys, N2, I2, ttl_ms=TTL_MS)),
        within=5,
        because="the lease was of 40 ms",
    )

    assert second > first


def test_epochs_keep_growing_after_a_loss_of_data(cluster: StoreDriver) -> None:
    first = cluster.lead()

    cluster.lose_data()

    assert cluster.lead() > first > 10**15


def test_a_resignation_frees_the_lease_at_once(cluster: StoreDriver) -> None:
    epoch = cluster.lead()

    assert cluster.run(lease.resign(cluster.keys, epoch, cause="draining"))

    assert queries.leader(cluster.store) is None
    assert (cluster.last().event, cluster.last().epoch, cluster.last().cause) == ("resign", epoch, "draining")
    assert cluster.lead(N2) > epoch


@pytest.mark.parametrize("led", [True, False])
def test_a_monitor_that_does_not_lead_cannot_resign(cluster: StoreDriver, led: bool) -> None:
    old = cluster.lead()
    cluster.depose()
    if not led:
        cluster.client.delete(cluster.keys.monitor)
    before = cluster.contents()

    assert not cluster.run(lease.resign(cluster.keys, old, cause="late"))
    assert cluster.contents() == before


def test_resigning_twice_is_no_error(cluster: StoreDriver) -> None:
    epoch = cluster.lead()

    assert cluster.run(lease.resign(cluster.keys, epoch, cause="draining"))
    assert not cluster.run(lease.resign(cluster.keys, epoch, cause="draining"))


def test_only_the_leader_can_confirm_a_server(cluster: StoreDriver) -> None:
    cluster.join()
    epoch = cluster.lead()

    confirmed = cluster.confirm(epoch, "server-1")
    with pytest.raises(LeaseLost):
        cluster.run(lease.confirm_server(cluster.keys, Epoch(epoch - 1), "server-2"))

    assert cluster.run(queries.overview(cluster.keys)).server == confirmed


@pytest.mark.parametrize("value", ["", "{", "[]", "7", '{"epoch":7}', '{"node":"n"}', '{"node":"n","epoch":"x"}'])
def test_a_corrupt_monitor_lease_counts_as_free(cluster: StoreDriver, value: str) -> None:
    """A corrupt value has no expiry and would lock out all candidates forever."""
    cluster.client.set(cluster.keys.monitor, value)

    assert queries.leader(cluster.store) is None
    assert not cluster.run(lease.resign(cluster.keys, Epoch(7), cause="late"))
    epoch = cluster.lead()
    assert queries.leader(cluster.store) == Leader(node=N1, epoch=epoch)
