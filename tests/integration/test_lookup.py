"""Finding daemons and nodes: one call each, from plain code and from coroutines."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from celery_daemons import ConfigurationError, InvalidName
from tests.conftest import RUNNING
from tests.support.crews import DIARY, SOON, Crew
from tests.support.servers import Server
from tests.support.waiting import wait_until

MANY = 1_100
ASKED = 2_500

SOURCE = (
    DIARY
    + """
@daemons.launcher
async def coroutine(ctx):
    await asyncio.Event().wait()

@daemons.launcher
def function(ctx):
    ctx.stopping.wait()

@daemons.launcher(labels=["moon"])
async def on_the_moon(ctx):
    pass

@daemons.launcher(backoff=60)
async def failing(ctx):
    raise RuntimeError("broken on purpose")
"""
)


@pytest.fixture(scope="module")
def shared(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    """Two nodes; the bound on their loads is so wide that each name gets the node that its ring prefers."""
    with Crew(tmp_path_factory.mktemp("lookup"), valkey, SOURCE, settings={"load_factor": 100.0}) as crew:
        crew.worker("w1")
        crew.worker("w2")
        yield crew


@pytest.fixture
def crew(shared: Crew, request: pytest.FixtureRequest) -> Iterator[Crew]:
    request.node.stash[RUNNING] = list(shared.workers.values())
    yield shared
    shared.forget_all()


def test_an_address_says_where_a_daemon_runs(crew: Crew) -> None:
    # Given
    before = time.time()
    crew.spawn("one", "function")

    # When
    address = crew.daemons.locate("one")

    # Then
    assert address is not None
    node = next(node for node in crew.daemons.nodes() if node.name == address.node)
    worker = crew.workers[address.node.partition("@")[0]]
    assert (address.name, address.launcher, address.status) == ("one", "function", "running")
    assert (address.incarnation, address.queue, address.host) == (node.incarnation, node.queue, node.host)
    assert address.pid in {process.pid for process in worker.tree()}
    assert before - 1 < address.started_at < time.time() + 1
    assert (node.pid, node.daemons, node.status) == (worker.pid, 1, "up")
    assert 0 < node.lease_ms <= 4000


def test_there_is_no_address_of_a_daemon_that_is_unknown_stopped_or_forgotten(crew: Crew) -> None:
    # Given
    crew.spawn("stopped", "coroutine")
    crew.spawn("forgotten", "coroutine")

    # When
    crew.daemons.stop("stopped", wait=SOON)
    crew.daemons.forget("forgotten")
    wait_until(lambda: crew.daemons.locate("forgotten") is None, within=SOON, because="nothing wants it any more")

    # Then
    assert crew.daemons.locate("stopped") is None
    assert crew.daemons.locate("never-heard-of") is None
    assert [(record.name, record.status) for record in crew.daemons.list()] == [("stopped", "stopped")]
    with pytest.raises(InvalidName, match="daemon name 'not a name'"):
        crew.daemons.locate("not a name")


def test_thousands_of_names_are_located_at_once_and_only_those_that_run_are_found(crew: Crew) -> None:
    # Given
    known = [f"many-{number}" for number in range(MANY)]
    for name in known:
        crew.daemons.spawn(name, "coroutine")
    wait_until(lambda: len(crew.running(*known)) == MANY, within=SOON, because="two nodes are up")

    # When: known names and unknown ones in turns, some of them twice
    names = [f"{'many' if number % 2 else 'missing'}-{number // 2}" for number in range(ASKED)]
    found = crew.daemons.locate_many([*names, *names[:10]])

    # Then
    assert set(found) == set(names) & set(known)
    assert len(found) == MANY
    assert found["many-7"] == crew.daemons.locate("many-7")
    assert crew.daemons.locate_many([]) == {}


def test_daemons_are_listed_by_node_launcher_and_status(crew: Crew) -> None:
    # Given
    addresses = {name: crew.spawn(name, "coroutine") for name in ("one", "two", "three", "four", "five", "six")}
    addresses["seven"] = crew.spawn("seven", "function")
    crew.daemons.stop("six", wait=SOON)
    crew.daemons.spawn("eight", "failing")
    wait_until(lambda: list(crew.daemons.list(status="backoff")), within=SOON, because="it always fails")
    nodes = {node.name for node in crew.daemons.nodes()}

    # When / Then
    def names(**wanted: str) -> set[str]:
        return {record.name for record in crew.daemons.list(**wanted)}

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

    # Then a record holds the address and what befell the daemon
    (record,) = crew.daemons.list(launcher="function")
    address = addresses["seven"]
    assert (record.node, record.token, record.pid, record.queue) == (
        *(address.node, address.token, address.pid, address.queue),
    )
    (failed,) = crew.daemons.list(launcher="failing")
    assert (failed.error, failed.desired) == ("RuntimeError: broken on purpose", "running")
    assert failed.restarts >= 1


def test_the_picked_node_is_the_one_that_a_daemon_is_placed_on(crew: Crew) -> None:
    # Given
    names = [f"picked-{number}" for number in range(30)]
    picked = {name: crew.daemons.pick_node(name) for name in names}
    assert set(picked.values()) == {"w1@test", "w2@test"}

    # When
    for name in names:
        crew.daemons.spawn(name, "coroutine")

    # Then
    wait_until(lambda: len(crew.running(*names)) == len(names), within=SOON, because="two nodes are up")
    assert {name: address.node for name, address in crew.running(*names).items()} == picked


def test_a_drained_node_is_not_picked(crew: Crew) -> None:
    # Given
    name = next(name for name in (f"any-{n}" for n in range(100)) if crew.daemons.pick_node(name) == "w2@test")

    # When
    crew.daemons.drain("w2@test", wait=SOON)
    try:
        # Then
        assert crew.daemons.pick_node(name) == "w1@test"
        assert crew.spawn(name, "coroutine").node == "w1@test"
    finally:
        crew.daemons.uncordon("w2@test")
    assert crew.daemons.pick_node(name) == "w2@test"


def test_every_call_has_its_coroutine(crew: Crew) -> None:
    aio = crew.daemons.aio

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


def test_coroutine_calls_leave_the_loop_free(crew: Crew) -> None:
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
            await crew.daemons.aio.spawn("never", "on_the_moon", wait=1)
        ticking.cancel()
        return ticks

    assert asyncio.run(story()) > 20
