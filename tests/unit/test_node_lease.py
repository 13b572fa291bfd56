"""The node's lease without Redis: what is told again after a loss of data."""

from typing import Any

import pytest

from celery_daemons.domain import runs
from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import DaemonStatus, NodeStatus
from celery_daemons.errors import StoreUnavailable
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.settings import Settings
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import ServerPin
from celery_daemons.store.keys import Keys
from celery_daemons.store.lease import Beat
from celery_daemons.store.script import BATCH, ScriptCall

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


class Forgetful:
    """A Redis that has lost its data, knows a node again once that has told of itself, and breaks off once."""

    def __init__(self, breaks_at: int) -> None:
        self.keys = Keys("test")
        self.pin = ServerPin()
        self.told = 0
        self._breaks_at = breaks_at

    async def run(self, call: ScriptCall[Any]) -> Any:
        """Run a verb."""
        if call.verb == "beat":
            return Beat("ok", 1, "1", led=True) if self.told else Beat("data_lost")
        assert call.verb == "reassert"
        if self.told == self._breaks_at:
            self._breaks_at = -1
            raise StoreUnavailable("broken off")
        self.told += 1
        return self.told, []


@pytest.mark.asyncio
@pytest.mark.parametrize("breaks_at", [0, 1, 2])
async def test_a_node_whose_telling_was_cut_short_tells_all_of_it_again(breaks_at: int) -> None:
    """Attacks invariant 5: what is not told of has no spec and no entry any more, and would be stopped for good."""
    runs = [
        runs.Running(
            name=DaemonName(f"d{number}"),
            token="1",
            launcher=LauncherName("tail"),
            arguments="[[], {}]",
            version="1",
            status=DaemonStatus.RUNNING,
            pid=11,
            restarts=0,
        )
        for number in range(2 * BATCH + 1)
    ]
    redis: Any = Forgetful(breaks_at)
    heartbeat = NodeLease(redis, Settings(redis_url="redis://"), NODE, ROW, lambda: runs)
    heartbeat.incarnation, heartbeat.until = Incarnation("i1"), lease_clock() + 60

    assert await heartbeat.beat() is None
    answer = await heartbeat.beat()
    await heartbeat.beat()

    assert answer is not None
    assert answer.verdict == "ok"
    assert redis.told == breaks_at + 3
