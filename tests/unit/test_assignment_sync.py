"""What a node makes of the book while spawn tasks, heartbeats and losses cross: without processes or Redis."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.node import assignment_sync
from celery_daemons.node.assignment_sync import AssignmentSync
from celery_daemons.node.outbox import Outbox
from celery_daemons.store.assignments import Holdings
from celery_daemons.store.keys import Keys
from celery_daemons.wire.messages import AssignmentsChanged

pytestmark = pytest.mark.asyncio

NODE = NodeName("celery@n1")
I1 = Incarnation("i1")


def page(generation: int, *names: str, cursor: str = "0") -> Holdings:
    """A page of daemons that run here."""
    entry = BookRow(status=DaemonStatus.RUNNING, token="1", launcher=LauncherName("tail"), node=NODE, incarnation=I1)
    return Holdings(generation, {DaemonName(name): entry for name in names}, cursor)


class Scene:
    """A node that runs daemons, and what Redis answers when it asks."""

    def __init__(self, *runs: str) -> None:
        self.pages: list[Holdings] = []
        self.reads = 0
        #: What happens while a page is on its way.
        self.meanwhile: Callable[[], None] = lambda: None
        self.synchronised: list[set[str]] = []
        self.heartbeat = SimpleNamespace(incarnation=I1)
        supervisor: Any = SimpleNamespace(
            lives=dict.fromkeys(runs), draining=False, synchronise=self._synchronise, recalled=list, assigned=list
        )
        self.ledger = Outbox(None, NODE, lambda items, claims: None)  # type: ignore[arg-type]
        store: Any = SimpleNamespace(keys=Keys("test"), run=self._run)
        heartbeat: Any = self.heartbeat
        self.catching_up = AssignmentSync(store, NODE, heartbeat, supervisor, self.ledger)

    async def _run(self, _call: Any) -> Holdings:
        self.reads += 1
        await asyncio.sleep(0)
        self.meanwhile()
        return self.pages.pop(0)

    def _synchronise(self, _known: Any, held: dict[DaemonName, BookRow]) -> None:
        self.synchronised.append(set(held))

    async def at(self, generation: int) -> None:
        """Everything is read up to a generation."""
        self.pages = [page(generation, "a", "b")]
        await self.catching_up.catch_up(generation)
        assert self.catching_up.is_at(generation)
        self.reads, self.synchronised = 0, []

    def hear(self, *generations: int) -> None:
        """Spawn tasks come in."""
        for generation in generations:
            self.catching_up.hear(AssignmentsChanged(str(I1), generation, [], []))


@pytest.fixture(autouse=True)
def no_lag(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for no message."""
    monkeypatch.setattr(assignment_sync, "_MESSAGE_LAG", 0.01)
    monkeypatch.setattr(assignment_sync, "_LAG_AT_WORK", 0.02)


@pytest.mark.parametrize("pages", [[page(0)], [page(7, "a", cursor="9"), page(0)]])
async def test_what_runs_here_outlives_a_loss_of_data_that_only_the_next_heartbeat_finds(pages: list[Holdings]) -> None:
    """Attacks invariant 5: stopped before it is told of, a daemon whose spec is lost too would be gone for good."""
    scene = Scene("a", "b")
    await scene.at(6)

    scene.pages = pages
    await scene.catching_up.catch_up(7)

    assert scene.synchronised == []
    assert not scene.catching_up.is_at(7)


async def test_what_is_read_while_half_is_told_again_counts_for_nothing() -> None:
    """Attacks invariant 5: after a loss of data, a node tells of what it runs in batches."""
    scene = Scene("a", "b")
    await scene.at(6)

    scene.pages = [page(9, "a")]
    scene.meanwhile = scene.ledger.void_answers
    await scene.catching_up.catch_up(7)

    assert scene.synchronised == []


async def test_a_doubt_that_comes_up_while_the_book_is_read_is_looked_into_after_that() -> None:
    scene = Scene("a", "b")
    await scene.at(6)

    scene.pages = [page(7, "a", "b")]
    scene.meanwhile = scene.catching_up.distrust
    await scene.catching_up.catch_up(7)

    assert scene.synchronised == [{"a", "b"}]
    assert not scene.catching_up.is_at(7)


async def test_a_lower_generation_of_a_promoted_replica_is_the_one_that_counts() -> None:
    """Attacks invariant 2: the generation that was reached before would come by again, and its message may be lost."""
    scene = Scene("a", "b")
    await scene.at(6)

    scene.pages = [page(4, "a", "b")]
    await scene.catching_up.catch_up(4)

    assert scene.catching_up.is_at(4)
    assert not scene.catching_up.is_at(6)


async def test_a_spawn_task_that_comes_in_while_the_book_is_read_is_not_read_again() -> None:
    scene = Scene("a", "b")
    await scene.at(6)

    scene.pages = [page(7, "a", "b")]
    scene.meanwhile = lambda: scene.hear(7, 8)
    await scene.catching_up.catch_up(7)

    assert scene.catching_up.is_at(8)


async def test_heartbeats_while_a_node_catches_up_do_not_make_it_read_the_same_again() -> None:
    scene = Scene("a", "b")
    await scene.at(6)

    scene.pages = [page(8, "a", "b"), page(8, "a", "b"), page(8, "a", "b")]
    await asyncio.gather(*(scene.catching_up.catch_up(generation) for generation in (7, 8, 8)))

    assert scene.reads == 1
    assert scene.catching_up.is_at(8)
