"""Daemons that do not stop, hosts that are replaced, and daemons that fail on every node."""

import pytest

from tests.conftest import RUNNING
from tests.integration.conftest import module_cluster
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
quick = {"backoff": 0.05, "backoff_max": 0.2, "stop_grace": 0.5}

@daemons.launcher("polite", **quick)
async def polite(ctx):
    note(ctx.name, "starts", token=ctx.token)
    try:
        await asyncio.sleep(1000)
    finally:
        note(ctx.name, "stops", token=ctx.token)

@daemons.launcher("stubborn", **quick)
async def stubborn(ctx):
    note(ctx.name, "starts")
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            note(ctx.name, "refuses")

@daemons.launcher("blocking", **quick)
async def blocking(ctx):
    note(ctx.name, "starts")
    time.sleep(1000)

@daemons.launcher("deaf", isolation="thread", **quick)
def deaf(ctx):
    note(ctx.name, "starts")
    time.sleep(1000)

@daemons.launcher("hopeless", max_restarts=2, **quick)
async def hopeless(ctx):
    note(ctx.name, "starts", node=ctx.node)
    raise LookupError("there is nothing here")

@daemons.launcher("spread", **quick)
async def spread(ctx):
    note(ctx.name, "starts")
    await asyncio.sleep(1000)

@daemons.launcher("greedy", **quick)
async def greedy(ctx):
    note(ctx.name, "starts")
    if not os.path.exists(f"{FOLDER}/fed"):
        open(f"{FOLDER}/fed", "w").close()
        eaten = bytearray(os.urandom(1)) * (400 * 1024 * 1024)
    await asyncio.sleep(1000)
"""
)


shared_cluster = module_cluster(SOURCE, settings={"host_max_memory": 300 * 1024})


@pytest.mark.parametrize("kind", ["stubborn", "deaf"])
def test_a_host_with_a_daemon_that_does_not_stop_is_killed_after_its_neighbours_stopped_gracefully(
    cluster: IntegrationCluster, kind: str
) -> None:
    # Given neighbours in one host
    names = [f"polite-{kind}-{number}" for number in range(5)]
    neighbours = {name: cluster.spawn(name, "polite") for name in names}
    bad = cluster.spawn(kind, kind)
    cluster.wait_event(kind, "starts")
    assert {address.pid for address in neighbours.values()} == {bad.pid}

    # When
    cluster.daemons.stop(kind, wait=SOON)

    # Then they run in another one, each stopped before it started again
    for name, address in neighbours.items():
        now = cluster.wait_restarted(address)
        assert now.pid != bad.pid
        assert now.node == address.node
        cluster.wait_event(name, "starts", times=2)
        assert [entry["event"] for entry in cluster.events(name)] == ["starts", "stops", "starts"]
    record = cluster.record(names[0])
    assert (record.restarts, record.error) == (1, None)


def test_a_host_whose_event_loop_is_blocked_is_killed_without_waiting_for_the_grace_of_neighbours(
    cluster: IntegrationCluster,
) -> None:
    # Given
    neighbour = cluster.spawn("polite-blocked", "polite")
    cluster.daemons.spawn("blocking", "blocking")
    cluster.wait_event("blocking", "starts")

    # When
    cluster.daemons.stop("blocking")

    # Then the host is killed, as nobody in it could have been stopped, and they start again
    now = cluster.wait_restarted(neighbour)
    assert now.pid != neighbour.pid
    cluster.wait_event("polite-blocked", "starts", times=2)
    assert [entry["event"] for entry in cluster.events("polite-blocked")] == ["starts", "starts"]
    assert "its event loop is blocked, killing it" in cluster.workers["w1"].output


@pytest.mark.heavy
def test_a_host_that_exceeds_its_memory_limit_is_replaced_after_its_daemons_stopped_gracefully(
    cluster: IntegrationCluster,
) -> None:
    neighbour = cluster.spawn("polite-eaten", "polite")

    greedy = cluster.spawn("greedy", "greedy")

    for before in (greedy, neighbour):
        assert cluster.wait_restarted(before).pid != before.pid
    cluster.wait_event("polite-eaten", "starts", times=2)
    assert [entry["event"] for entry in cluster.events("polite-eaten")] == ["starts", "stops", "starts"]
    assert "more than daemons_host_max_memory" in cluster.workers["w1"].output


def test_a_daemon_that_reaches_its_restart_limit_on_the_only_node_is_failed_until_another_node_joins(
    cluster: IntegrationCluster,
) -> None:
    cluster.daemons.spawn("hopeless-here", "hopeless")

    record = cluster.wait_status("hopeless-here", "failed")

    assert record.error == "LookupError: there is nothing here"
    assert len(cluster.events("hopeless-here", "starts")) >= 4

    # Until there is another one, which tries at once
    worker = cluster.worker("w2")
    wait_until(
        lambda: any(entry["node"] == "w2@test" for entry in cluster.events("hopeless-here", "starts")),
        within=SOON,
        because="another node can try",
    )
    assert cluster.wait_status("hopeless-here", "failed").node == "w2@test"
    assert worker.stop() == 0


#: Two nodes with two hosts each.
pair = module_cluster(SOURCE, workers={"w1": {}, "w2": {}}, settings={"hosts": 2})


def test_a_daemon_that_reaches_its_restart_limit_is_tried_on_another_node_and_then_failed(
    pair: IntegrationCluster, request: pytest.FixtureRequest
) -> None:
    """A failing daemon is neither given up forever nor restarted in a hot loop."""
    # Given
    request.node.stash[RUNNING] = list(pair.workers.values())
    names = [f"polite-{number}" for number in range(8)]
    neighbours = {name: pair.spawn(name, "polite") for name in names}

    # When
    pair.daemons.spawn("hopeless", "hopeless")

    # Then
    record = pair.wait_status("hopeless", "failed")
    nodes = [entry["node"] for entry in pair.events("hopeless", "starts")]
    assert len(set(nodes[:3])) == 1
    assert nodes[3] not in nodes[:3]
    assert record.node == nodes[3]
    trace = pair.daemons.lookups.trace("hopeless")
    assert trace is not None
    assert 'raise LookupError("there is nothing here")' in trace
    exhausted = [one for one in pair.daemons.events(last=500) if one.event == "release" and one.node == nodes[0]]
    assert ("hopeless", "exhausted") in [(name, why) for one in exhausted for name, _, why in one.items]
    assert {name: pair.daemons.locate(name) for name in names} == neighbours
    pair.forget_all()


def test_coroutine_daemons_are_spread_over_the_hosts_of_a_node(
    pair: IntegrationCluster, request: pytest.FixtureRequest
) -> None:
    request.node.stash[RUNNING] = list(pair.workers.values())

    for number in range(20):
        pair.daemons.spawn(f"spread-{number}", "spread")

    names = [f"spread-{number}" for number in range(20)]
    wait_until(lambda: len(pair.running(*names)) == len(names), within=SOON, because="they are wanted")
    places = pair.running(*names)
    for node in ("w1@test", "w2@test"):
        pids = [address.pid for address in places.values() if address.node == node]
        counts = sorted(pids.count(pid) for pid in set(pids))
        assert len(counts) == 2
        assert counts[1] - counts[0] <= 1
    pair.forget_all()
