"""`celery daemons move` and `rebalance`, and the same calls in Python, on two nodes with manual rebalancing."""

import asyncio
from collections.abc import Iterator

import pytest

from celery_daemons import Move
from celery_daemons.errors import ConfigurationError, DaemonsError
from tests.conftest import RUNNING
from tests.support.clusters import EVENT_LOG, SOON, IntegrationCluster
from tests.support.servers import Server
from tests.support.waiting import wait_until

SOURCE = (
    EVENT_LOG
    + """
@daemons.launcher("rest")
async def rest(ctx):
    await asyncio.sleep(1000)
"""
)
NAMES = [f"rest-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def shared(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IntegrationCluster]:
    settings = {"rebalance": "manual", "rebalance_limit": 0.5}
    with IntegrationCluster(tmp_path_factory.mktemp("cli-balance"), valkey, SOURCE, settings=settings) as cluster:
        cluster.worker("w1")
        cluster.worker("w2")
        yield cluster


@pytest.fixture
def cluster(shared: IntegrationCluster, request: pytest.FixtureRequest) -> Iterator[IntegrationCluster]:
    """A cluster whose ten daemons all run on the first node."""
    request.node.stash[RUNNING] = list(shared.workers.values())
    shared.daemons.drain("w2@test")
    for name in NAMES:
        shared.daemons.spawn(name, "rest")
    wait_until(lambda: on(shared, "w1@test") == 10, within=SOON, because="the other node is drained")
    shared.daemons.uncordon("w2@test")
    yield shared
    shared.daemons.resume_rebalance()
    shared.forget_all()


def on(cluster: IntegrationCluster, node: str) -> int:
    """Return the number of daemons on a node."""
    return sum(address.node == node for address in cluster.running(*NAMES).values())


def test_a_dry_run_shows_each_move_with_its_reason_and_moves_nothing(cluster: IntegrationCluster) -> None:
    before = cluster.running(*NAMES)

    moves = cluster.project.celery_json("daemons", "rebalance", "--dry-run")
    shown = cluster.project.celery("daemons", "rebalance", "--dry-run").stdout

    assert 4 <= len(moves) <= 6
    for move in moves:
        assert move.keys() == {"name", "source", "target", "why"}
        assert (move["source"], move["target"]) == ("w1@test", "w2@test")
        assert "holds less than its share" in move["why"]
        assert move["name"] in shown
    assert f"{len(moves)} daemons would move: {len(moves)} to w2@test" in shown
    assert cluster.running(*NAMES) == before


def test_the_monitor_makes_exactly_the_moves_that_rebalance_returns(cluster: IntegrationCluster) -> None:
    moves = cluster.daemons.rebalance()

    assert all(isinstance(move, Move) for move in moves)
    wait_until(lambda: on(cluster, "w2@test") == len(moves), within=SOON, because="the monitor makes the moves")
    assert {name for name, address in cluster.running(*NAMES).items() if address.node == "w2@test"} == {
        move.name for move in moves
    }
    assert cluster.daemons.rebalance() == []
    assert "nothing to move" in cluster.project.celery("daemons", "rebalance").stdout
    describe = cluster.project.celery_json("daemons", "describe", moves[0].name)
    assert describe["placement"] == f"rebalanced: {moves[0].why}"


def test_a_paused_rebalance_is_refused_until_it_is_resumed(cluster: IntegrationCluster) -> None:
    assert cluster.project.celery("daemons", "rebalance", "--pause").stdout == "rebalancing: paused\n"

    refused = cluster.project.celery("daemons", "rebalance")
    assert (
        "rebalancing is paused: `celery -A proj daemons rebalance --resume`"
        in cluster.project.celery("daemons", "status").stdout
    )

    assert refused.returncode == 1
    assert "rebalancing is paused; `celery -A" in refused.stderr
    assert cluster.project.celery_json("daemons", "rebalance", "--pause") == {"rebalance_paused": True}
    with pytest.raises(DaemonsError, match="paused"):
        cluster.daemons.rebalance()
    assert len(cluster.daemons.rebalance(dry_run=True)) >= 4
    assert cluster.project.celery("daemons", "rebalance", "--resume").stdout == "rebalancing: resumed\n"
    cluster.daemons.rebalance()
    wait_until(lambda: on(cluster, "w2@test") >= 4, within=SOON, because="rebalancing was resumed")


def test_a_rebalance_that_is_switched_off_is_refused_with_the_name_of_the_setting(cluster: IntegrationCluster) -> None:
    off = cluster.project.python(
        "import proj\n"
        "from celery_daemons import ConfigurationError\n"
        "proj.daemons._overrides['rebalance'] = 'off'\n"
        "try: proj.daemons.rebalance()\n"
        "except ConfigurationError as error: print(error)"
    )

    assert off == "daemons_rebalance is 'off': nothing is moved; set it to 'manual' or 'auto'\n"
    assert issubclass(ConfigurationError, DaemonsError)


def test_a_daemon_can_be_moved_by_command_and_by_coroutine(cluster: IntegrationCluster) -> None:
    before = cluster.running("rest-1")["rest-1"]

    there = cluster.project.celery_json("daemons", "move", "rest-1", "--to", "w2@test", "--wait", "20")
    back = asyncio.run(cluster.daemons.aio.move("rest-1", wait=SOON))
    nowhere = cluster.project.celery("daemons", "move", "rest-1", "--to", "w7@test")
    unknown = cluster.project.celery("daemons", "move", "rest-99")

    assert (there["node"], there["status"]) == ("w2@test", "running")
    assert back.node == "w1@test"
    assert before.token < there["token"] < back.token
    assert (nowhere.returncode, unknown.returncode) == (1, 1)
    assert "'w7@test' is not a node that is up and has launcher rest; suitable nodes: w2@test" in nowhere.stderr
    assert "no daemon rest-99 is known" in unknown.stderr
