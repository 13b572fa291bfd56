"""A server that was a replica meanwhile: it has its run id and its connections, and may lack its last writes."""

from collections.abc import Iterator

import pytest

from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.runs import Assignment
from celery_daemons.store import book, lease, queries
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.server_pin import ServerChanged, ServerPin, server_id
from tests.conftest import NewServer
from tests.store.driver import I1, N1, TTL_MS, StoreDriver, row
from tests.support.servers import Flavour, free_port


@pytest.fixture(params=["redis", "valkey"])
def own(request: pytest.FixtureRequest, new_server: NewServer) -> Iterator[StoreDriver]:
    """Return a driver on a server of this test only, which a monitor has confirmed."""
    flavour: Flavour = request.param
    store = Store(new_server(flavour=flavour).url, Keys("test"), pin_server=True)
    driver = StoreDriver(store)
    driver.join()
    yield driver
    store.close()


def demote_and_promote(driver: StoreDriver) -> None:
    """Make the server a replica, and a primary again."""
    driver.client.replicaof("127.0.0.1", free_port())
    driver.client.replicaof("NO", "ONE")


def test_every_answer_about_a_lease_has_the_new_history_of_a_server_that_was_a_replica(own: StoreDriver) -> None:
    """Attacks invariant 9: the connection and the run id are the same as before."""
    # Given
    before = own.run(queries.overview(own.keys)).history
    assert before
    pinned = own.store.pin.server

    # When
    demote_and_promote(own)

    # Then
    after = own.run(queries.overview(own.keys)).history
    assert after not in ("", before)
    assert own.run(lease.beat(own.keys, N1, I1, ttl_ms=TTL_MS)).history == after
    assert own.join().history == after
    assert own.store.pin.server == pinned


def test_a_server_that_was_a_replica_grants_no_claim_until_it_is_confirmed_again(own: StoreDriver) -> None:
    """Attacks invariant 1: the book may name the former node of a daemon that runs elsewhere."""
    # Given
    epoch = own.lead()
    own.want("x")
    assigned = own.assign(epoch, "x")
    assert isinstance(assigned, book.Dispatch)
    run_id = own.store.pin.server
    own.confirm(epoch, run_id)
    claim = book.claim(own.keys, N1, I1, [Assignment(DaemonName("x"), assigned.tokens[0])], server=run_id)

    # When
    demote_and_promote(own)

    # Then
    assert own.run(claim) is None
    own.confirm(epoch, run_id)
    assert [result.token for result in own.run(claim)] == list(assigned.tokens)


def test_a_server_that_was_a_replica_takes_no_assignment_until_it_is_confirmed_again(own: StoreDriver) -> None:
    """Attacks invariant 1: a daemon without an entry may run by an assignment that the server has lost."""
    epoch = own.lead()
    own.want("x")
    own.confirm(epoch, own.store.pin.server)

    demote_and_promote(own)

    assert own.assign(epoch, "x") is book.NotAssigned.SERVER
    assert own.entry("x") is None
    own.confirm(epoch, own.store.pin.server)
    assert isinstance(own.assign(epoch, "x"), book.Dispatch)


def test_a_server_that_changes_while_the_monitor_waits_is_not_confirmed(own: StoreDriver) -> None:
    """Attacks invariant 9: the lease that the monitor has waited was one on another history."""
    epoch = own.lead()
    observed = server_id(own.store.pin.server, own.run(queries.overview(own.keys)).history)

    demote_and_promote(own)

    assert own.run(lease.confirm_server(own.keys, epoch, observed)) is False
    assert own.run(queries.overview(own.keys)).server == ""


def test_a_node_that_registers_again_takes_the_confirmation_of_the_earlier_history_back(own: StoreDriver) -> None:
    epoch = own.lead()
    own.confirm(epoch, own.store.pin.server)
    demote_and_promote(own)

    own.run(lease.join(own.keys, N1, row(), ttl_ms=TTL_MS, server=own.store.pin.server))

    assert own.run(queries.overview(own.keys)).server == ""


def test_a_pin_moves_to_a_server_that_reports_no_run_id_and_from_there_to_another() -> None:
    """Attacks invariant 2: a pin that cannot move refuses every connection forever."""
    pin = ServerPin()
    pin.check("run_id:first")

    with pytest.raises(ServerChanged, match="run id unknown, expected first"):
        pin.check("redis_version:7.0.0")
    assert pin.accept_new_server()
    pin.check("redis_version:7.0.0")

    with pytest.raises(ServerChanged, match="run id second, expected unknown"):
        pin.check("run_id:second")
    assert pin.accept_new_server()
    assert pin.server == "second"
    assert not pin.accept_new_server()


def test_a_server_without_a_history_is_known_by_its_run_id() -> None:
    assert server_id("a", "") == "a"
    assert server_id("a", "1") != server_id("a", "2")
