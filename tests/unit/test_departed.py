"""The queues of a departed node are kept until this monitor has known for a minute that the node is gone."""

from collections.abc import Callable
from typing import Any

import fakeredis
import msgspec
import pytest

from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.monitor.departed import DepartedNodes
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys

NODE = NodeName("celery@n1")
HOUR_MS = 3_600_000


class Broker:
    """Stands in for the dispatcher, and knows whose queues were to be removed."""

    def __init__(self) -> None:
        self.removed: list[str] = []
        #: What happens while a request waits for the broker.
        self.meanwhile: Callable[[], object] = int

    def remove_queues(self, *, spawn_queue: str, task_queue: str, is_gone: Callable[[], bool], **_: Any) -> None:
        """Remove queues unless the node is back."""
        self.meanwhile()
        if is_gone():
            self.removed += [spawn_queue, task_queue]


class Scene:
    """A monitor's departed nodes, on clocks that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.broker = Broker()
        self.store = Store("redis://double", Keys("gone"), client=fakeredis.FakeRedis())
        dispatcher: Any = self.broker
        self.nodes = DepartedNodes(store=self.store, epoch=Epoch(1), dispatcher=dispatcher, clock=lambda: self.now)

    def leave(self, at_ms: int) -> None:
        """Record that the node left, at a time of Redis's clock."""
        record = {"at_ms": at_ms, "queue": "q", "spawn_queue": "s"}
        self.store.client.hset(self.store.keys.gone, NODE, msgspec.json.encode(record))

    def redis_ms(self) -> int:
        """Return the time of Redis's clock."""
        return int(self.store.client.time()[0]) * 1000

    def run_for(self, seconds: int) -> set[str]:
        """Let time pass on the monitor's clock; return the queues that were removed."""
        for _ in range(seconds):
            self.nodes.remove_queues()
            self.now += 1
        return set(self.broker.removed)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS], ids=["forward", "back"])
def test_a_step_of_redis_clock_removes_no_queue_early_and_delays_no_removal(scene: Scene, step_ms: int) -> None:
    """Attacks invariant 4: after a step forward, a node that was restarting had left long ago."""
    scene.leave(scene.redis_ms() - step_ms)

    assert scene.run_for(59) == set()
    assert scene.run_for(120) == {"s", "q"}


def test_a_node_that_has_come_back_and_left_again_is_gone_from_then_on(scene: Scene) -> None:
    scene.leave(scene.redis_ms())
    scene.run_for(59)

    scene.leave(scene.redis_ms() + 30_000)

    assert scene.run_for(50) == set()
    assert scene.run_for(120) == {"s", "q"}


def test_the_queues_of_a_node_that_comes_back_while_the_broker_is_slow_are_kept(scene: Scene) -> None:
    scene.leave(scene.redis_ms())
    scene.broker.meanwhile = lambda: scene.store.client.hdel(scene.store.keys.gone, NODE)

    assert scene.run_for(130) == set()
