"""The live replica of the address book: it follows changes, and returns no address after the end of a node's lease."""

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from celery_daemons import Address, AddressBook, DaemonsError, SpawnTimeout
from celery_daemons.store.keys import Keys
from tests.conftest import RUNNING
from tests.integration.conftest import module_cluster
from tests.support.clusters import COROUTINE_AND_FUNCTION, SOON, IntegrationCluster
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until

LEASE = 2.0
#: One check per hundredth of a second, for as long as a few checks of the leases take.
GLANCES = 150

shared_cluster = module_cluster(COROUTINE_AND_FUNCTION, workers={"w1": {}, "w2": {}}, settings={"lease_ttl": LEASE})


@pytest.fixture
def cluster(cluster: IntegrationCluster) -> IntegrationCluster:
    """Return the cluster with both nodes up, also after a test that has killed one."""
    cluster.worker("w1")
    cluster.worker("w2")
    return cluster


@pytest.fixture
def book(cluster: IntegrationCluster) -> Iterator[AddressBook]:
    with cluster.daemons.address_book() as book:
        yield book


def spread(cluster: IntegrationCluster, prefix: str, count: int = 8) -> dict[str, Address]:
    """Daemons on both nodes, all running."""
    names = [f"{prefix}-{number}" for number in range(count)]
    for name in names:
        cluster.daemons.spawn(name, "coroutine")
    wait_until(lambda: len(cluster.running(*names)) == count, within=SOON, because="two nodes are up")
    found = cluster.running(*names)
    assert {address.node for address in found.values()} == {"w1@test", "w2@test"}
    return found


def same(book: AddressBook, address: Address) -> bool:
    """Whether the replica gives this address."""
    return book.locate(address.name) == address


def ended(cluster: IntegrationCluster, incarnation: str) -> bool:
    """Return whether the lease of a node's incarnation has ended, according to Redis."""
    return all(node.incarnation != incarnation or node.status == "lost" for node in cluster.daemons.nodes())


def test_the_replica_follows_daemons_as_they_come_change_and_go(cluster: IntegrationCluster, book: AddressBook) -> None:
    # When one is spawned
    cluster.daemons.spawn("one", "function")
    first = book.wait_for("one", timeout=SOON)

    # Then its address is that of the real book
    assert first == cluster.daemons.locate("one") == book.locate("one")
    assert book.process_list(first.node) == [first]

    # When the daemon is restarted
    second = cluster.daemons.restart("one", wait=SOON)

    # Then
    wait_until(lambda: book.locate("one") == second, within=SOON, because="the journal reports the change")

    # When it is stopped
    cluster.daemons.stop("one", wait=SOON)

    # Then
    wait_until(lambda: book.locate("one") is None, within=SOON, because="the journal reports the change")
    assert book.process_list(first.node) == []
    assert book.lag < 1.5


def test_the_replica_knows_nodes_and_their_daemons(cluster: IntegrationCluster, book: AddressBook) -> None:
    # When
    spread(cluster, "even")

    # Then
    wait_until(
        lambda: sum(node.daemons for node in book.nodes()) == 8, within=SOON, because="the journal reports the change"
    )
    real = cluster.daemons.nodes()
    assert [(node.name, node.incarnation, node.status, node.daemons) for node in book.nodes()] == [
        (node.name, node.incarnation, "up", node.daemons) for node in real
    ]
    for node in real:
        names = [address.name for address in book.process_list(node.name)]
        assert names == sorted(record.name for record in cluster.daemons.list(node=node.name))
    assert book.process_list("nowhere@test") == []
    for number in range(20):
        assert book.pick_node(f"some-{number}") == cluster.daemons.pick_node(f"some-{number}")


def test_waiting_for_a_daemon_returns_its_address_or_raises_the_reason(
    cluster: IntegrationCluster, book: AddressBook
) -> None:
    # When a thread waits before the daemon is spawned
    spawning = threading.Timer(0.2, cluster.daemons.spawn, args=("late", "coroutine"))
    spawning.start()
    assert book.wait_for("late", timeout=SOON).name == "late"
    spawning.join()

    # When the daemon is not spawned
    with pytest.raises(SpawnTimeout, match=r"daemon never does not run after 0\.2 s: it is on no node"):
        book.wait_for("never", timeout=0.2)


def test_a_daemon_on_a_node_with_a_lease_has_an_address_at_every_moment(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A lease that is shorter than the replica's usual interval is read more often."""
    # Given
    settings = {"lease_ttl": 1.2, "heartbeat_interval": 0.3}
    with (
        IntegrationCluster(tmp_path, valkey, COROUTINE_AND_FUNCTION, settings=settings) as cluster,
        cluster.daemons.address_book() as book,
    ):
        request.node.stash[RUNNING] = [cluster.worker()]
        address = cluster.spawn("steady", "coroutine")
        wait_until(lambda: book.locate("steady") == address, within=SOON, because="the journal reports the change")

        # When / Then
        for _ in range(GLANCES):
            assert book.locate("steady") == address or cluster.daemons.locate("steady") != address
            time.sleep(0.01)


def test_daemons_of_a_killed_node_have_no_address_between_the_end_of_the_lease_and_their_restart(
    cluster: IntegrationCluster, book: AddressBook
) -> None:
    """A look-up must not return a daemon whose node is dead."""
    # Given
    before = spread(cluster, "moving")
    wait_until(lambda: all(map(book.locate, before)), within=SOON, because="the journal reports the change")
    lost = next(address for address in before.values() if address.node == "w2@test")
    names = [name for name, address in before.items() if address.incarnation == lost.incarnation]

    # When
    cluster.workers["w2"].kill_tree()

    # Then neither the replica nor the book itself returns its address once the lease has ended
    wait_until(lambda: ended(cluster, lost.incarnation), within=SOON, because="nobody renews the lease")
    for where in (book.locate(lost.name), cluster.daemons.locate(lost.name)):
        assert where is None or where.incarnation != lost.incarnation

    # Then they run on the other node under newer tokens, and the others have not moved
    for name in names:
        after = cluster.wait_restarted(before[name])
        assert after.node == "w1@test"
        wait_until(partial(same, book, after), within=SOON, because="the journal reports the change")
    assert all(book.locate(name) == before[name] for name in set(before) - set(names))
    wait_until(lambda: [node.name for node in book.nodes()] == ["w1@test"], within=SOON, because="w2 was swept")
    assert book.process_list("w2@test") == []


def test_the_replica_gives_no_address_once_every_node_is_dead(cluster: IntegrationCluster, book: AddressBook) -> None:
    # Given
    before = spread(cluster, "dying")
    wait_until(lambda: all(map(book.locate, before)), within=SOON, because="the journal reports the change")

    # When no node is left to sweep the lease
    for worker in cluster.workers.values():
        worker.kill_tree()

    # Then
    for incarnation in {address.incarnation for address in before.values()}:
        wait_until(partial(ended, cluster, incarnation), within=SOON, because="nobody renews the lease")
    assert [name for name in before if book.locate(name)] == []
    assert cluster.daemons.locate_many(before) == {}
    assert {node.status for node in book.nodes()} == {"lost"}
    assert [book.process_list(node) for node in ("w1@test", "w2@test")] == [[], []]
    assert (book.pick_node("any"), cluster.daemons.pick_node("any")) == (None, None)
    assert {record.status for record in cluster.daemons.list()} == {"pending"}


def test_a_disconnected_replica_gives_no_address_after_the_last_known_lease_and_recovers(
    cluster: IntegrationCluster, proxy: Proxy
) -> None:
    # Given
    cluster.spawn("far", "coroutine")
    with AddressBook.connect(proxy.url, cluster.namespace) as book:
        address = book.wait_for("far", timeout=SOON)

        # When Redis stops answering, without an error
        proxy.hole()
        cut = time.monotonic()

        # Then
        wait_until(lambda: book.locate("far") is None, within=LEASE + 1, because="no lease is known to run")
        assert book.lag > time.monotonic() - cut - 1
        assert cluster.daemons.locate("far") == address

        # When
        proxy.heal()

        # Then
        wait_until(lambda: book.locate("far") == address, within=SOON, because="Redis answers again")
        wait_until(lambda: book.lag < 1, within=SOON, because="Redis answers again")


def test_a_replica_that_fell_behind_a_trimmed_journal_reloads_the_address_book(
    cluster: IntegrationCluster, proxy: Proxy
) -> None:
    # Given
    cluster.spawn("going", "coroutine")
    with AddressBook.connect(proxy.url, cluster.namespace) as book:
        book.wait_for("going", timeout=SOON)

        # When its requests are delayed, and the changes meanwhile are no longer in the journal
        proxy.hold("up")
        cluster.daemons.stop("going", wait=SOON)
        cluster.spawn("coming", "coroutine")
        with cluster.server.client() as client:
            client.xtrim(Keys(cluster.namespace).journal, maxlen=1, approximate=False)
        proxy.heal()

        # Then
        assert book.wait_for("coming", timeout=SOON) == cluster.daemons.locate("coming")
        wait_until(lambda: book.locate("going") is None, within=SOON, because="the address book was read again")


def test_a_replica_works_without_importing_celery(cluster: IntegrationCluster) -> None:
    # Given
    address = cluster.spawn("seen-from-afar", "coroutine")

    # When
    told = cluster.project.python(
        "import sys\n"
        "from celery_daemons import AddressBook\n"
        f"with AddressBook.connect({cluster.server.url!r}, namespace={cluster.namespace!r}) as book:\n"
        "    print(book.wait_for('seen-from-afar', timeout=10).pid, book.locate('seen-from-afar').queue)\n"
        "assert not {'celery', 'kombu'} & set(sys.modules)\n"
    )

    # Then
    assert told == f"{address.pid} {address.queue}\n"


def test_a_replica_that_is_not_open_raises_an_error_instead_of_returning_no_address(
    cluster: IntegrationCluster,
) -> None:
    # Given
    address = cluster.spawn("open-and-shut", "coroutine")
    book = cluster.daemons.address_book()
    with pytest.raises(DaemonsError, match=r"not open.*with"):
        book.locate(address.name)

    # When
    with book:
        assert book.locate(address.name) == address

    # Then
    for ask in (book.locate, book.process_list, book.pick_node, partial(book.wait_for, timeout=1)):
        with pytest.raises(DaemonsError, match="not open"):
            ask(address.name)
