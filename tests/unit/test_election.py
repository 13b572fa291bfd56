"""Running for election: what lengthens the pause before the next candidacy, and what does not."""

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import Epoch, Incarnation, NodeName
from celery_daemons.node import election as election_module
from celery_daemons.node.election import Election
from celery_daemons.node.measurements import Measurements
from celery_daemons.node.vitals import Vitals
from celery_daemons.node.witness import ClusterWitness
from celery_daemons.settings import Settings
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall

SETTINGS = Settings(redis_url="", lease_ttl=5.0, heartbeat_interval=1.0)
ME = Incarnation("me")
#: The longest pause after one failure, with its jitter.
SHORT = 1.5


class Redis:
    """Elects every candidate, and refuses every renewal: another node was elected meanwhile."""

    def __init__(self) -> None:
        self.keys = Keys("test")
        self.epochs = 0

    async def run(self, call: ScriptCall[Any]) -> Any:
        """Run a verb."""
        if call.verb == "campaign" and call.args[3] == "":
            self.epochs += 1
            return Epoch(self.epochs)
        return None


class Scene:
    """A candidate whose forks wait forever, or fail, on a clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fork_error: OSError | None) -> None:
        self.now = 1000.0
        self.fork_error = fork_error
        monkeypatch.setattr(election_module, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(election_module, "lease_clock", lambda: self.now)
        self.redis = Redis()
        store: Any = self.redis
        spawner: Any = SimpleNamespace(start=self._start)
        boot: Any = SimpleNamespace(node="w1@here", settings=SETTINGS)
        self.election = Election(
            boot=boot,
            settings=SETTINGS,
            spawner=spawner,
            store=store,
            witness=ClusterWitness(settings=SETTINGS, node=NodeName("w1@here")),
            vitals=Vitals(no_ticks="", now=self.now),
            measurements=Measurements(),
            rng=random.Random(7),
        )

    async def _start(self, *_: object) -> Any:
        if self.fork_error is not None:
            raise self.fork_error
        await asyncio.Event().wait()

    async def seconds_until_elected(self) -> float:
        """Run for election at every tenth of a second; return how long that took."""
        began, epochs = self.now, self.redis.epochs
        while self.redis.epochs == epochs:
            self.now += 0.1
            await self.election.after_beat(ME, led=False)
        return self.now - began

    async def lose(self) -> None:
        """Let the next renewal be refused."""
        await self.election.after_beat(ME, led=True)
        assert self.election.epoch is None


@pytest.mark.asyncio
async def test_a_lease_that_is_lost_repeatedly_does_not_lengthen_the_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attacks invariant 4: each step of Redis's clock ends the monitor's lease; sixteen led to pauses of 30 s."""
    scene = Scene(monkeypatch, None)
    await scene.seconds_until_elected()

    for _ in range(16):
        await scene.lose()
        assert await scene.seconds_until_elected() <= SHORT + 0.2


@pytest.mark.asyncio
async def test_a_monitor_that_cannot_be_forked_is_elected_at_growing_intervals_and_logged_at_growing_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(monkeypatch, OSError("process 7 did not reach its role"))
    pauses = []
    for _ in range(12):
        pauses.append(await scene.seconds_until_elected())
        # The fork fails in a separate task.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert scene.election.epoch is None

    assert pauses[-1] > 10 * SHORT
    shown = [record for record in caplog.records if record.levelname == "ERROR"]
    assert 2 <= len(shown) <= 5


def test_a_monitor_that_fails_for_days_does_not_overflow_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, None)

    for _ in range(1200):
        scene.election._end_monitor(failed=True)

    assert scene.election._not_before <= scene.now + 1.5 * 30.0
