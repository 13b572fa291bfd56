"""What a node reads from the book while spawn tasks, heartbeats and losses cross: no processes, no Redis."""

import asyncio
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.node import assignment_sync
from celery_daemons.node.assignment_sync import AssignmentSync
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.store.assignments import Holdings
from celery_daemons.store.keys import Keys
from celery_daemons.wire.messages import AssignmentsChanged

pytestmark = pytest.mark.asyncio

NODE = NodeName("celery@n1")
I1 = Incarnation("i1")


def page(generation: int, *names: str, cursor: str = "0") -> Holdings:
    """A page of daemons that run on the node."""
    row = BookRow(status=DaemonStatus.RUNNING, token=Token(1), launcher=LauncherName("tail"), node=NODE, incarnation=I1)
    return Holdings(generation, {DaemonName(name): row for name in names}, cursor)


class SyncHarness:
    """A node, and what Redis answers when it reads its assignments."""

    def __init__(self) -> None:
        keys = Keys("test")
        self.pages: list[Holdings] = []
        self.reads = 0
        #: What happens while a page is on its way.
        self.meanwhile: Callable[[], None] = lambda: None
        self.outbox = Outbox(keys=keys, node=NODE)
        store: Any = SimpleNamespace(keys=keys, run=self._run)
        lease: Any = SimpleNamespace(incarnation=I1)
        supervisor = Supervisor({}, shared_hosts=1, rng=random.Random(1))
        self.sync = AssignmentSync(store=store, node=NODE, lease=lease, supervisor=supervisor, outbox=self.outbox)

    async def _run(self, _call: Any) -> Holdings:
        self.reads += 1
        await asyncio.sleep(0)
        self.meanwhile()
        return self.pages.pop(0)

    async def read_up_to(self, generation: int) -> None:
        """Everything up to a generation has been read."""
        self.pages = [page(generation, "a", "b")]
        assert await self.catch_up(generation) == {"a", "b"}
        assert self.sync.is_current(generation)
        self.reads = 0

    async def catch_up(self, generation: int) -> set[str] | None:
        """A heartbeat reports a generation; the names that the node then reads."""
        held = await self.sync.catch_up(generation)
        return None if held is None else set(held.rows)

    def receive(self, *generations: int) -> None:
        """Spawn tasks arrive."""
        for generation in generations:
            assert self.sync.on_message(AssignmentsChanged(I1, generation, [], []))


@pytest.fixture(autouse=True)
def no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly wait for messages."""
    monkeypatch.setattr(assignment_sync, "_MESSAGE_LAG", 0.01)
    monkeypatch.setattr(assignment_sync, "_LAG_WHILE_BUSY", 0.02)


@pytest.mark.parametrize("pages", [[page(0)], [page(7, "a", cursor="9"), page(0)]])
async def test_a_loss_of_data_before_the_next_heartbeat_stops_no_daemon(pages: list[Holdings]) -> None:
    """Attacks invariant 5: a daemon that is stopped before the node registers again would be lost with its spec."""
    harness = SyncHarness()
    await harness.read_up_to(6)

    harness.pages = pages

    assert await harness.catch_up(7) is None
    assert not harness.sync.is_current(7)


async def test_assignments_read_in_the_middle_of_a_reassertion_are_ignored() -> None:
    """Attacks invariant 5: after a loss of data, a node registers its daemons in batches."""
    harness = SyncHarness()
    await harness.read_up_to(6)

    harness.pages = [page(9, "a")]
    harness.meanwhile = harness.outbox.void_replies

    assert await harness.catch_up(7) is None


async def test_an_invalidation_during_a_read_makes_the_node_read_again() -> None:
    harness = SyncHarness()
    await harness.read_up_to(6)

    harness.pages = [page(7, "a", "b")]
    harness.meanwhile = harness.sync.invalidate

    assert await harness.catch_up(7) == {"a", "b"}
    assert not harness.sync.is_current(7)


async def test_the_lower_generation_of_a_promoted_replica_counts() -> None:
    """Attacks invariant 2: the earlier generation would be reached a second time, and its message may be lost."""
    harness = SyncHarness()
    await harness.read_up_to(6)

    harness.pages = [page(4, "a", "b")]
    await harness.catch_up(4)

    assert harness.sync.is_current(4)
    assert not harness.sync.is_current(6)


async def test_a_spawn_task_that_arrives_during_a_read_is_not_read_again() -> None:
    harness = SyncHarness()
    await harness.read_up_to(6)

    harness.pages = [page(7, "a", "b")]
    harness.meanwhile = lambda: harness.receive(7, 8)
    await harness.catch_up(7)

    assert harness.sync.is_current(8)


async def test_a_spawn_task_for_another_incarnation_is_ignored() -> None:
    harness = SyncHarness()

    assert not harness.sync.on_message(AssignmentsChanged(Incarnation("i0"), 1, [], []))


async def test_heartbeats_during_a_read_do_not_start_another_read() -> None:
    harness = SyncHarness()
    await harness.read_up_to(6)

    harness.pages = [page(8, "a", "b"), page(8, "a", "b"), page(8, "a", "b")]
    await asyncio.gather(*(harness.catch_up(generation) for generation in (7, 8, 8)))

    assert harness.reads == 1
    assert harness.sync.is_current(8)
