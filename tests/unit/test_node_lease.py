"""The node's lease without Redis: registering again after a loss of data."""

from typing import Any, cast

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Running
from celery_daemons.domain.states import DaemonStatus, NodeStatus
from celery_daemons.errors import StoreUnavailable
from celery_daemons.node import node_lease
from celery_daemons.node.node_lease import Forgotten, NodeLease, Renewed
from celery_daemons.settings import Settings
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.keys import Keys
from celery_daemons.store.lease import Beat
from celery_daemons.store.script import BATCH, ScriptCall
from celery_daemons.store.server_pin import ServerPin

NODE = NodeName("celery@n1")
ROW = NodeRow(
    incarnation=Incarnation(""),
    status=NodeStatus.UP,
    queue="q",
    spawn_queue="s",
    host="machine",
    pid=7,
    weight=1.0,
    labels="",
    launchers="tail",
)


class ForgetfulRedis:
    """A Redis that has lost its data, knows a node again from its first reassertion on, and fails one of these."""

    def __init__(self, fails_at: int) -> None:
        self.keys = Keys("test")
        self.pin = ServerPin()
        self.batches = 0
        self._fails_at = fails_at

    async def run(self, call: ScriptCall[Any]) -> Any:
        """Run a verb."""
        if call.verb == "beat":
            return Beat("ok", 1, "1", led=True) if self.batches else Beat("data_lost")
        assert call.verb == "reassert"
        if self.batches == self._fails_at:
            self._fails_at = -1
            raise StoreUnavailable("no answer")
        self.batches += 1
        return self.batches, []


@pytest.mark.asyncio
@pytest.mark.parametrize("fails_at", [0, 1, 2])
async def test_an_interrupted_reassertion_is_repeated_from_the_start(fails_at: int) -> None:
    """Attacks invariant 5: a daemon that is not reasserted has neither spec nor entry, and would stop for good."""
    # Given a node with three batches of daemons, and a Redis that has lost its data
    running = [
        Running(
            name=DaemonName(f"d{number}"),
            token=Token(1),
            launcher=LauncherName("tail"),
            arguments="[[], {}]",
            version="1",
            status=DaemonStatus.RUNNING,
            pid=11,
            restarts=0,
        )
        for number in range(2 * BATCH + 1)
    ]
    redis: Any = ForgetfulRedis(fails_at)
    lease = NodeLease(store=redis, settings=Settings(redis_url="redis://"), node=NODE, row=ROW)
    lease.incarnation, lease.until = Incarnation("i1"), lease_clock() + 60

    # When the first reassertion is cut short
    assert await lease.beat() == Forgotten()
    assert await lease.reassert(running) is None

    # Then the next heartbeat asks for another one, although Redis knows the node by then
    assert await lease.beat() == Forgotten()
    assert isinstance(await lease.reassert(running), Renewed)
    assert redis.batches == fails_at + 3

    # And the one after that does not
    assert isinstance(await lease.beat(), Renewed)


class AnsweringRedis:
    """A Redis that renews every lease, with the history and the problem that a test sets."""

    def __init__(self) -> None:
        self.keys = Keys("test")
        self.pin = ServerPin()
        self.pin.check("run_id:server")
        self.history = "1"
        self.problem = ""

    async def run(self, call: ScriptCall[Any]) -> Any:
        """Run a verb."""
        if call.verb == "beat":
            return Beat("ok", 1, "1", led=True, history=self.history, problem=self.problem)
        return 1, []


def running_lease(redis: Any) -> NodeLease:
    """Return the lease of a node that has joined."""
    settings = Settings(redis_url="redis://", lease_ttl=5.0)
    lease = NodeLease(store=redis, settings=settings, node=NODE, row=ROW)
    lease.incarnation, lease.until = Incarnation("i1"), lease_clock() + 60
    return lease


@pytest.mark.asyncio
async def test_a_server_with_another_history_gets_what_runs_again_and_no_claims_for_one_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attacks invariant 9: the run id and the connection are the same as before."""
    # Given
    now = 1000.0
    monkeypatch.setattr(node_lease, "lease_clock", lambda: now)
    redis = AnsweringRedis()
    lease = running_lease(redis)
    assert isinstance(await lease.beat(), Renewed)
    assert lease.confirmed_server() == "server"

    # When
    redis.history = "2"

    # Then
    assert await lease.beat() == Forgotten()
    assert isinstance(await lease.reassert([]), Renewed)
    assert lease.confirmed_server() is None
    now += 4.9
    assert isinstance(await lease.beat(), Renewed)
    assert lease.confirmed_server() is None
    now += 0.2
    assert lease.confirmed_server() == "server"


@pytest.mark.asyncio
async def test_a_problem_that_redis_still_has_is_known_to_the_node() -> None:
    """Attacks invariant 2: the report was carried out without an answer, and the problem was over before the next."""
    redis = AnsweringRedis()
    lease = running_lease(redis)

    redis.problem = "no process can be forked"
    await lease.beat()

    assert lease.problem == "no process can be forked"


@pytest.mark.asyncio
async def test_a_node_joins_with_the_problem_that_it_has_before() -> None:
    lease = NodeLease(store=cast("Any", AnsweringRedis()), settings=Settings(redis_url="redis://"), node=NODE, row=ROW)

    assert await lease.report_problem("ImportError: no driver")

    assert lease.problem == "ImportError: no driver"
