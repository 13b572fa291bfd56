"""Look up daemons and nodes, from plain code and from coroutines."""

import asyncio
import time

import pytest

from celery_daemons import ConfigurationError, InvalidName
from tests.integration.conftest import module_cluster
from tests.support.clusters import COROUTINE_AND_FUNCTION, SOON, IntegrationCluster
from tests.support.waiting import wait_until

MANY = 1_100
ASKED = 2_500

SOURCE = (
    COROUTINE_AND_FUNCTION
    + """
@daemons.launcher(labels=["moon"])
async def on_the_moon(ctx):
    pass

@daemons.launcher(backoff=60)
async def failing(ctx):
    raise RuntimeError("broken on purpose")
"""
)


#: The limit on loads is so high that each name gets the node that the ring prefers.
shared_cluster = module_cluster(SOURCE, workers={"w1": {}, "w2": {}}, settings={"load_factor": 100.0})


def test_an_address_describes_where_a_daemon_runs(cluster: IntegrationCluster) -> None:
    # Given
    before = time.time()
    cluster.spawn("one", "function")

    # When
    address = cluster.daemons.locate("one")

    # Then
    assert address is not None
    node = next(node for node in cluster.daemons.nodes() if node.name == address.node)
    worker = cluster.workers[address.node.partition("@")[0]]
    assert (address.name, address.launcher, address.status) == ("one", "function", "running")
    assert (address.incarnation, address.queue, address.host) == (node.incarnation, node.queue, node.host)
    assert address.pid in {process.pid for process in worker.tree()}
    assert before - 1 < address.started_at < time.time() + 1
    assert (node.pid, node.daemons, node.status) == (worker.pid, 1, "up")
    assert 0 < node.lease_ms <= 4000


def test_an_unknown_stopped_or_forgotten_daemon_has_no_address(cluster: IntegrationCluster) -> None:
    # Given
    cluster.spawn("stopped", "coroutine")
    cluster.spawn("forgotten", "coroutine")

    # When
    cluster.daemons.stop("stopped", wait=SOON)
    cluster.daemons.forget("forgotten")
    wait_until(lambda: cluster.daemons.locate("forgotten") is None, within=SOON, because="the daemon was forgotten")

    # Then
    assert cluster.daemons.locate("stopped") is None
    assert cluster.daemons.locate("unknown") is None
    assert [(record.name, record.status) for record in cluster.daemons.list()] == [("stopped", "stopped")]
    with pytest.raises(InvalidName, match="daemon name 'not a name'"):
        cluster.daemons.locate("not a name")


def test_one_call_locates_thousands_of_names_and_returns_running_daemons_only(cluster: IntegrationCluster) -> None:
    # Given
    known = [f"many-{number}" for number in range(MANY)]
    for name in known:
        cluster.daemons.spawn(name, "coroutine")
    wait_until(lambda: len(cluster.running(*known)) == MANY, within=SOON, because="two nodes are up")

    # When: known names and unknown ones in turns, some of them twice
    names = [f"{'many' if number % 2 else 'missing'}-{number // 2}" for number in range(ASKED)]
    found = cluster.daemons.locate_many([*names, *names[:10]])

    # Then
    assert set(found) == set(names) & set(known)
    assert len(found) == MANY
    assert found["many-7"] == cluster.daemons.locate("many-7")
    assert cluster.daemons.locate_many([]) == {}


def test_daemons_are_listed_by_node_launcher_and_status(cluster: IntegrationCluster) -> None:
    # Given
    addresses = {name: cluster.spawn(name, "coroutine") for name in ("one", "two", "three", "four", "five", "six")}
    addresses["seven"] = cluster.spawn("seven", "function")
    cluster.daemons.stop("six", wait=SOON)
    cluster.daemons.spawn("eight", "failing")
    wait_until(lambda: list(cluster.daemons.list(status="backoff")), within=SOON, because="it always fails")
    nodes = {node.name for node in cluster.daemons.nodes()}

    # When / Then
    def names(**wanted: str) -> set[str]:
        return {record.name for record in cluster.daemons.list(**wanted)}

    assert names() == {*addresses, "eight"}
    assert names(launcher="function") == {"seven"}
    assert names(status="stopped") == {"six"}
    assert names(status="running") == set(addresses) - {"six"}
    assert names(launcher="coroutine", status="running") == set(addresses) - {"six", "seven"}
    for node in nodes:
        at_home = {name for name, address in addresses.items() if address.node == node and name != "six"}
        assert names(node=node, status="running") == at_home
    assert names(node="nowhere@test") == set()
    with pytest.raises(ConfigurationError, match="asleep"):
        names(status="asleep")

    # Then a record holds the address, the last error and the number of restarts
    (record,) = cluster.daemons.list(launcher="function")
    address = addresses["seven"]
    assert (record.node, record.token, record.pid, record.queue) == (
        *(address.node, address.token, address.pid, address.queue),
    )
    (failed,) = cluster.daemons.list(launcher="failing")
    assert (failed.error, failed.desired) == ("RuntimeError: broken on purpose", "running")
    assert failed.restarts >= 1


def test_a_daemon_is_placed_on_the_node_that_pick_node_returned(cluster: IntegrationCluster) -> None:
    # Given
    names = [f"picked-{number}" for number in range(30)]
    picked = {name: cluster.daemons.pick_node(name) for name in names}
    assert set(picked.values()) == {"w1@test", "w2@test"}

    # When
    for name in names:
        cluster.daemons.spawn(name, "coroutine")

    # Then
    wait_until(lambda: len(cluster.running(*names)) == len(names), within=SOON, because="two nodes are up")
    assert {name: address.node for name, address in cluster.running(*names).items()} == picked


def test_a_drained_node_is_not_picked(cluster: IntegrationCluster) -> None:
    # Given
    name = next(name for name in (f"any-{n}" for n in range(100)) if cluster.daemons.pick_node(name) == "w2@test")

    # When
    cluster.daemons.drain("w2@test", wait=SOON)
    try:
        # Then
        assert cluster.daemons.pick_node(name) == "w1@test"
        assert cluster.spawn(name, "coroutine").node == "w1@test"
    finally:
        cluster.daemons.uncordon("w2@test")
    assert cluster.daemons.pick_node(name) == "w2@test"


def test_every_call_has_a_coroutine_version(cluster: IntegrationCluster) -> None:
    aio = cluster.daemons.aio

    async def story() -> None:
        # Steering
        address = await aio.spawn("one", "coroutine", wait=SOON)
        await aio.spawn("two", "function", wait=SOON)
        restarted = await aio.restart("one", wait=SOON)
        assert restarted.token > address.token
        await aio.stop("two", wait=SOON)

        # Looking up
        assert await aio.locate("one") == restarted
        assert await aio.locate_many(["one", "two"]) == {"one": restarted}
        assert {node.name for node in await aio.nodes()} == {"w1@test", "w2@test"}
        assert await aio.pick_node("one") in {"w1@test", "w2@test"}
        assert {record.name: record.status async for record in aio.list()} == {"one": "running", "two": "stopped"}
        assert [record.name async for record in aio.list(status="stopped")] == ["two"]

        # What is wrong is raised where it is awaited
        with pytest.raises(InvalidName):
            await aio.locate("not a name")

        # The rest
        await aio.start("two")
        await aio.drain("w2@test", wait=SOON)
        await aio.uncordon("w2@test")
        await aio.rescan()
        assert await aio.forget("two") is True
        assert (await aio.status()).nodes["up"] == 2
        assert (await aio.events(last=1))[0].event

    asyncio.run(story())


def test_coroutine_calls_do_not_block_the_event_loop(cluster: IntegrationCluster) -> None:
    async def story() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        # A wait of a second, for something that will not come.
        with pytest.raises(TimeoutError, match="carries the labels moon"):
            await cluster.daemons.aio.spawn("never", "on_the_moon", wait=1)
        ticking.cancel()
        return ticks

    assert asyncio.run(story()) > 20
