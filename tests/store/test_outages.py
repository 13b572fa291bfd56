"""Servers that are down, silent, full, locked, evicting or read-only: every call raises StoreUnavailable in time."""

import time
from collections.abc import Iterator

import pytest
from redis.exceptions import OutOfMemoryError, RedisError

from celery_daemons.errors import ConfigurationError, DaemonsError, StoreUnavailable
from celery_daemons.store import assignments, journal, lease, specs
from celery_daemons.store.connection import AsyncStore, Store
from celery_daemons.store.fence import FencedRedis
from celery_daemons.store.keys import Keys
from tests.conftest import NewServer
from tests.store.driver import ARGUMENTS, I1, N1, TAIL, TTL_MS, StoreDriver, lookups_of, names
from tests.support.servers import Flavour, Server, free_port
from tests.support.waiting import wait_until

KEYS = Keys("outage")
#: Seconds; the timeout of the stores in these tests.
TIMEOUT = 0.3
#: Seconds that a call with one timeout may take on a busy machine.
SOON = 1.5

WANT = specs.record(KEYS, [(names(["x"])[0], TAIL, ARGUMENTS)], mode="spawn")


@pytest.fixture(params=["redis", "valkey"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def own(new_server: NewServer, flavour: Flavour) -> Server:
    """Return a server for this test only."""
    return new_server(flavour=flavour)


@pytest.fixture
def own_store(own: Server) -> Iterator[Store]:
    store = Store(own.url, KEYS, timeout=TIMEOUT)
    yield store
    store.close()


def unavailable(store: Store) -> StoreUnavailable:
    """Check that every use of the store raises StoreUnavailable in time; return the last error."""
    caught: StoreUnavailable | None = None
    for use in (
        lambda: store.run(WANT),
        lambda: store.entry(names(["x"])[0]),
        lambda: lookups_of(store).nodes(),
        lambda: journal.last_id(store),
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as raised:
            use()
        assert time.monotonic() - began < SOON
        assert not isinstance(raised.value, RedisError)
        assert isinstance(raised.value, DaemonsError)
        caught = raised.value
    assert caught is not None
    return caught


def test_a_server_that_does_not_listen_is_unavailable() -> None:
    store = Store(f"redis://:secret@127.0.0.1:{free_port()}/0", KEYS, timeout=TIMEOUT)

    error = unavailable(store)

    assert "does not answer correctly" in str(error)
    assert "daemons_redis_url" in str(error)
    assert "secret" not in str(error)


def test_a_killed_server_is_unavailable_until_it_returns(own: Server, own_store: Store) -> None:
    own_store.run(WANT)

    own.kill()
    unavailable(own_store)
    own.start()

    assert own_store.run(WANT) == ["new"]


def test_a_silent_server_is_unavailable_after_the_timeout(own: Server, own_store: Store) -> None:
    own_store.run(WANT)

    own.pause()
    try:
        unavailable(own_store)
    finally:
        own.resume()

    wait_until(lambda: answers(own_store), within=5, because="the server was resumed")


def answers(store: Store) -> bool:
    try:
        store.run(WANT)
    except StoreUnavailable:
        return False
    return True


def test_a_broken_connection_is_replaced_without_an_error(own: Server, own_store: Store) -> None:
    own_store.run(WANT)

    own.restart(keep_data=False)

    assert own_store.run(WANT) == ["new"]


def test_scripts_are_sent_again_to_a_server_that_lost_them(own: Server, own_store: Store) -> None:
    own_store.run(WANT)

    own_store.client.script_flush()
    assert own_store.run(WANT) == ["same"]


def test_a_read_only_replica_is_unavailable(
    own: Server, own_store: Store, new_server: NewServer, flavour: Flavour
) -> None:
    """Redis-py #435, #935: after a fail-over, a client keeps writing to the old primary."""
    own_store.run(WANT)
    before = own_store.read(lambda redis: redis.client_id())
    primary = new_server(flavour=flavour)
    with own.client() as client:
        client.replicaof("127.0.0.1", primary.port)

    note = journal.note(KEYS, "test")
    with pytest.raises(StoreUnavailable, match=r"is a read-only replica; point daemons_redis_url at the primary"):
        own_store.run(note)
    with own.client() as client:
        client.replicaof("no", "one")

    assert own_store.run(note) == 1
    after = own_store.read(lambda redis: redis.client_id())
    assert after != before, "the client kept a connection to a replica"


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-lru"])
def test_a_server_that_may_evict_keys_is_refused(new_server: NewServer, flavour: Flavour, policy: str) -> None:
    server = new_server(f"maxmemory-policy {policy}", "maxmemory 100mb", flavour=flavour)
    store = Store(server.url, KEYS)

    with pytest.raises(ConfigurationError, match=f"may evict keys .maxmemory-policy {policy}"):
        store.run(WANT)

    assert store.client.dbsize() == 0
    store.close()


def test_a_server_that_requires_a_password_is_unavailable_without_one(new_server: NewServer, flavour: Flavour) -> None:
    server = new_server(flavour=flavour)
    with server.client() as client:
        client.config_set("requirepass", "sesame")
    wrong = Store(f"redis://:guess@127.0.0.1:{server.port}/0", KEYS)
    right = Store(f"redis://:sesame@127.0.0.1:{server.port}/0", KEYS)

    with pytest.raises(StoreUnavailable) as caught:
        wrong.run(WANT)

    assert "guess" not in str(caught.value)
    assert right.run(WANT) == ["new"]
    wrong.close()
    right.close()


def test_a_full_server_accepts_heartbeats_releases_and_leaves(own: Server, own_store: Store) -> None:
    """If a queue fills the server, daemons keep running and a worker can still shut down."""
    cluster = StoreDriver(own_store)
    epoch, tokens = cluster.started("x", "y")
    cluster.client.zadd(KEYS.leases, {N1: cluster.now_ms() + 5000})
    cluster.client.config_set("maxmemory", 1)

    assert cluster.run(lease.beat(KEYS, N1, I1, ttl_ms=TTL_MS)).verdict == "ok"
    assert (cluster.lease_ms() or 0) > TTL_MS / 2
    assert cluster.run(lease.campaign(KEYS, N1, I1, ttl_ms=TTL_MS, epoch=epoch)) == epoch
    assert len(cluster.run(assignments.page(KEYS, N1)).rows) == 2
    for name, token in tokens.items():
        assert cluster.release(name, token)
    assert cluster.run(lease.leave(KEYS, N1, I1)) == 0


def test_a_full_server_carries_out_a_verb_completely_or_not_at_all(own: Server, own_store: Store) -> None:
    cluster = StoreDriver(own_store)
    epoch, tokens = cluster.started("x", "y")
    cluster.want("free")
    before = cluster.contents()
    cluster.client.config_set("maxmemory", 1)

    for denied in (
        lambda: cluster.want("z"),
        lambda: cluster.assign(epoch, "free"),
        lambda: cluster.claim("x", tokens["x"]),
        lambda: cluster.report("x", tokens["x"]),
        lambda: cluster.recall(epoch, "x"),
    ):
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            denied()
    assert cluster.contents() == before

    cluster.client.config_set("maxmemory", 0)
    cluster.end_lease()
    cluster.client.config_set("maxmemory", 1)
    assert sorted(cluster.sweep(epoch).names) == ["x", "y"]


def test_a_full_server_refuses_fenced_writes_whole_and_accepts_fenced_deletions(own: Server, own_store: Store) -> None:
    """Attacks invariant 9: the fence was written before the value, and needs memory that a deletion frees."""
    client = own_store.client
    FencedRedis(client, name="x", token=1).hset("log", {"a": 1})
    client.config_set("maxmemory", 1)
    newer = FencedRedis(client, name="x", token=2)

    with pytest.raises(OutOfMemoryError):
        newer.hset("log", {"b": 2})
    assert client.get("{log}:fence") == b"1"

    assert newer.delete("log") == 1
    assert client.get("{log}:fence") == b"2"


@pytest.mark.asyncio
async def test_the_async_store_does_the_same(own: Server) -> None:
    store = AsyncStore(own.url, KEYS, timeout=TIMEOUT)

    await store.check()
    assert await store.run(WANT) == ["new"]
    await store.client.script_flush()
    assert await store.run(WANT) == ["same"]
    assert await store.read(lambda client: client.hlen(KEYS.specs)) == 1

    own.restart(keep_data=False)
    with pytest.raises(StoreUnavailable):
        await store.run(WANT)
    assert await store.run(WANT) == ["new"]
    own.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await store.run(WANT)
        assert time.monotonic() - began < SOON
    finally:
        own.resume()
    own.kill()
    for use in (store.run(WANT), store.check(), store.read(lambda client: client.ping())):
        with pytest.raises(StoreUnavailable):
            await use
    await store.close()


@pytest.mark.asyncio
async def test_the_async_store_refuses_what_evicts_and_what_is_a_replica(
    new_server: NewServer, flavour: Flavour
) -> None:
    evicting = new_server("maxmemory-policy allkeys-lru", flavour=flavour)
    store = AsyncStore(evicting.url, KEYS, timeout=TIMEOUT)
    with pytest.raises(ConfigurationError):
        await store.check()
    with evicting.client() as client:
        client.replicaof("127.0.0.1", free_port())
    with pytest.raises(StoreUnavailable, match="read-only replica"):
        await store.run(WANT)
    await store.close()


def test_a_pinned_store_refuses_a_different_server_until_it_is_accepted(own: Server) -> None:
    """Attacks: a decision made before a fail-over is written to a promoted replica or a server with old data."""
    store = Store(own.url, KEYS, timeout=TIMEOUT, pin_server=True)
    assert store.run(WANT) == ["new"]
    before = store.pin.server

    own.restart(keep_data=False)

    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="connected to a different server"):
            store.run(WANT)
    assert own.client().dbsize() == 0
    assert store.pin.accept_new_server()
    assert store.run(WANT) == ["new"]
    assert store.pin.server not in ("", before)
    assert not store.pin.accept_new_server()
    store.close()
