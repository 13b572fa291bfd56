"""The node's lease without Redis: registering again after a loss of data."""

from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Running
from celery_daemons.domain.states import DaemonStatus, NodeStatus
from celery_daemons.errors import StoreUnavailable
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
