"""`celery daemons move` and `rebalance`, and the same calls in Python, on two nodes with manual rebalancing."""

import asyncio
from collections.abc import Iterator

import pytest

from celery_daemons import Move
from celery_daemons.errors import ConfigurationError, DaemonsError
from tests.conftest import RUNNING
from tests.support.crews import DIARY, SOON, Crew
from tests.support.servers import Server
from tests.support.waiting import wait_until

SOURCE = (
    DIARY
    + """
@daemons.launcher("rest")
async def rest(ctx):
    await asyncio.sleep(1000)
"""
)
NAMES = [f"rest-{number}" for number in range(10)]


@pytest.fixture(scope="module")
def shared(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    settings = {"rebalance": "manual", "rebalance_limit": 0.5}
    with Crew(tmp_path_factory.mktemp("cli-balance"), valkey, SOURCE, settings=settings) as crew:
        crew.worker("w1")
        crew.worker("w2")
        yield crew


@pytest.fixture
def crew(shared: Crew, request: pytest.FixtureRequest) -> Iterator[Crew]:
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


def on(crew: Crew, node: str) -> int:
    """Return the number of daemons on a node."""
    return sum(address.node == node for address in crew.running(*NAMES).values())


def test_a_dry_run_shows_each_move_with_its_reason_and_moves_nothing(crew: Crew) -> None:
    before = crew.running(*NAMES)

    moves = crew.project.celery_json("daemons", "rebalance", "--dry-run")
    shown = crew.project.celery("daemons", "rebalance", "--dry-run").stdout

    assert 4 <= len(moves) <= 6
    for move in moves:
        assert move.keys() == {"name", "source", "target", "why"}
        assert (move["source"], move["target"]) == ("w1@test", "w2@test")
        assert "holds less than its share" in move["why"]
        assert move["name"] in shown
    assert f"{len(moves)} daemons would move: {len(moves)} to w2@test" in shown
    assert crew.running(*NAMES) == before


def test_the_monitor_makes_exactly_the_moves_that_rebalance_returns(crew: Crew) -> None:
    moves = crew.daemons.rebalance()

    assert all(isinstance(move, Move) for move in moves)
    wait_until(lambda: on(crew, "w2@test") == len(moves), within=SOON, because="the monitor makes the moves")
    assert {name for name, address in crew.running(*NAMES).items() if address.node == "w2@test"} == {
        move.name for move in moves
    }
    assert crew.daemons.rebalance() == []
    assert "nothing to move" in crew.project.celery("daemons", "rebalance").stdout
    describe = crew.project.celery_json("daemons", "describe", moves[0].name)
    assert describe["placement"] == f"rebalanced: {moves[0].why}"


def test_a_paused_rebalance_is_refused_until_it_is_resumed(crew: Crew) -> None:
    assert crew.project.celery("daemons", "rebalance", "--pause").stdout == "rebalancing: paused\n"

    refused = crew.project.celery("daemons", "rebalance")
    assert (
        "rebalancing is paused: `celery -A proj daemons rebalance --resume`"
        in crew.project.celery("daemons", "status").stdout
    )

    assert refused.returncode == 1
    assert "rebalancing is paused; `celery -A" in refused.stderr
    with pytest.raises(DaemonsError, match="paused"):
        crew.daemons.rebalance()
    assert len(crew.daemons.rebalance(dry_run=True)) >= 4
    assert crew.project.celery("daemons", "rebalance", "--resume").stdout == "rebalancing: resumed\n"
    crew.daemons.rebalance()
    wait_until(lambda: on(crew, "w2@test") >= 4, within=SOON, because="rebalancing was resumed")


def test_a_rebalance_that_is_switched_off_is_refused_with_the_name_of_the_setting(crew: Crew) -> None:
    off = crew.project.python(
        "import proj\n"
        "from celery_daemons import ConfigurationError\n"
        "proj.daemons._overrides['rebalance'] = 'off'\n"
        "try: proj.daemons.rebalance()\n"
        "except ConfigurationError as error: print(error)"
    )

    assert off == "daemons_rebalance is 'off': nothing is moved; set it to 'manual' or 'auto'\n"
    assert issubclass(ConfigurationError, DaemonsError)


def test_a_daemon_can_be_moved_by_command_and_by_coroutine(crew: Crew) -> None:
    before = crew.running("rest-1")["rest-1"]

    there = crew.project.celery_json("daemons", "move", "rest-1", "--to", "w2@test", "--wait", "20")
    back = asyncio.run(crew.daemons.aio.move("rest-1", wait=SOON))
    nowhere = crew.project.celery("daemons", "move", "rest-1", "--to", "w7@test")
    unknown = crew.project.celery("daemons", "move", "rest-99")

    assert (there["node"], there["status"]) == ("w2@test", "running")
    assert back.node == "w1@test"
    assert before.token < there["token"] < back.token
    assert (nowhere.returncode, unknown.returncode) == (1, 1)
    assert "'w7@test' is not a node that is up and has launcher rest; suitable nodes: w2@test" in nowhere.stderr
    assert "no daemon rest-99 is known" in unknown.stderr
