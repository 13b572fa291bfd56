"""What a node does when messages, answers and ends cross: the supervisor without processes or Redis."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.domain.names import DaemonName, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import BookRow
from celery_daemons.domain.runs import End
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.node.host_pool import Host, HostPool
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.local_daemon import State
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.wire.messages import ChildBoot, Ended

X = DaemonName("x")
NODE = NodeName("celery@n1")
LAUNCHERS = {
    "tail": LauncherOptions(stop_grace=0.02),
    "once": LauncherOptions(restart="temporary"),
}


class Pool(HostPool):
    """One shared host that is always ready, and that hears nothing."""

    def __init__(self) -> None:
        self.fresh = 0
        self.host = Host(isolated=False)
        self.host.ready.set()

    def least_loaded(self) -> Host:
        """The only one."""
        return self.host

    def retire(self, host: Host) -> None:
        """Count what is started in its place."""
        self.fresh += 1

    def forget(self, host: Host) -> None:
        """Nothing is kept."""


class Scene:
    """A supervisor, and what it has to say to Redis."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.supervisor = Supervisor(LAUNCHERS)
        self.ledger = Outbox(None, NODE, self.supervisor.claimed)  # type: ignore[arg-type]
        self.ledger.differs = lambda: self.doubts.append(X)
        self.supervisor.connect(self.pool, self.ledger)
        self.doubts: list[DaemonName] = []

    def owed(self) -> list[tuple[str, str]]:
        """The releases that Redis has not taken yet: tokens and outcomes."""
        return [(one.token, one.outcome) for one in self.ledger._releases.values()]

    def grant(self, asked: str, token: str, launcher: str = "tail") -> None:
        """Redis grants a claim."""
        claim = ClaimResult(token, LauncherName(launcher), "[[],{}]", "1", 0)
        self.ledger.drop(X)
        self.supervisor.claimed([(X, asked)], [claim])

    def refuse(self, asked: str, why: str) -> None:
        """Redis refuses one."""
        self.ledger.drop(X)
        self.supervisor.claimed([(X, asked)], [ClaimResult("", LauncherName(""), "", "", 0, refused=why)])

    def runs(self, token: str, launcher: str = "tail") -> None:
        """The daemon is assigned, claimed and running."""
        self.supervisor.assigned([(X, token)])
        self.grant(token, token, launcher)
        self.supervisor.host_started(self.pool.host, [(X, int(token))])

    def ends(self, token: str, outcome: Outcome) -> None:
        """Its host says that it ended."""
        self.supervisor.host_ended(self.pool.host, Ended([End(X, int(token), outcome)]))

    def reads(self, token: str, status: DaemonStatus) -> None:
        """The node reads from the book that it holds the daemon."""
        row = BookRow(status=status, token=token, launcher=LauncherName("tail"), node=NODE)
        self.supervisor.synchronise(dict(self.supervisor.lives), {X: row})

    @property
    def claims(self) -> list[str]:
        """The tokens under which it asks to start the daemon."""
        return list(self.ledger._claims.values())


def played(story: Callable[[Scene], None]) -> Scene:
    """Run a story where timers have a loop."""

    async def play() -> Scene:
        scene = Scene()
        story(scene)
        return scene

    return asyncio.run(play())


def test_a_claim_whose_answer_was_lost_makes_the_node_read_what_it_holds() -> None:
    """The second claim of a token is refused if the first was granted a newer one: the book counts on this node."""

    def story(scene: Scene) -> None:
        scene.runs("1")
        scene.ends("1", Outcome.FAILED)
        scene.supervisor._claim_again(scene.supervisor.lives[X])
        scene.refuse("1", "superseded")
        assert scene.doubts
        scene.reads("2", DaemonStatus.STARTING)

    assert played(story).claims == ["2"]


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "claiming"])
def test_a_recall_under_a_token_that_the_node_never_heard_of_gives_that_one_back(waits: bool) -> None:
    """Else the release is refused, and the daemon is stopping for ever."""

    def story(scene: Scene) -> None:
        scene.runs("1")
        scene.ends("1", Outcome.FAILED)
        if not waits:
            scene.supervisor._claim_again(scene.supervisor.lives[X])
        scene.supervisor.recalled([(X, "2")])

    assert played(story).owed() == [("2", "stopped")]


@pytest.mark.parametrize("by_message", [True, False], ids=["message", "book"])
def test_what_comes_back_while_it_is_still_stopping_starts_again(by_message: bool) -> None:
    """The book named no node for it, as after a fail-over, and names this one again before it has ended."""

    def story(scene: Scene) -> None:
        scene.runs("1")
        scene.supervisor.synchronise(dict(scene.supervisor.lives), {})
        if by_message:
            scene.supervisor.assigned([(X, "2")])
        else:
            scene.reads("2", DaemonStatus.ASSIGNED)
        scene.ends("1", Outcome.STOPPED)

    scene = played(story)
    assert (scene.claims, scene.owed()) == (["2"], [])


@pytest.mark.parametrize("recalled", ["before", "after"])
def test_a_temporary_daemon_that_ends_as_it_is_recalled_is_not_started_elsewhere(recalled: str) -> None:
    """Its end and the recall cross, on the way to the host or on the way to Redis."""

    def story(scene: Scene) -> None:
        scene.runs("1", "once")
        if recalled == "before":
            scene.supervisor.recalled([(X, "1")])
        scene.ends("1", Outcome.FINISHED)
        if recalled == "after":
            scene.supervisor.recalled([(X, "1")])

    assert played(story).owed() == [("1", "finished")]


def test_one_that_is_killed_as_it_is_recalled_is_started_elsewhere() -> None:
    """It was stopped by its node, not by itself: no policy is against another life."""

    def story(scene: Scene) -> None:
        scene.runs("1", "once")
        scene.supervisor.recalled([(X, "1")])
        scene.supervisor.host_died(scene.pool.host)

    assert played(story).owed() == [("1", "stopped")]


def test_the_grace_of_a_life_that_died_with_its_lease_starts_no_host() -> None:
    async def play() -> Scene:
        scene = Scene()
        scene.runs("1")
        scene.supervisor.recalled([(X, "1")])
        assert scene.supervisor.lives[X].state is State.STOPPING
        scene.supervisor.forget_all()
        scene.pool.host.dead = True
        await asyncio.sleep(0.1)
        return scene

    assert asyncio.run(play()).pool.fresh == 0


class NoProcesses:
    """A spawner on a machine that is out of processes."""

    async def start(self, _role: str, _boot: ChildBoot, _until: Callable[[], float]) -> Any:
        """Fail."""
        raise BlockingIOError(11, "Resource temporarily unavailable")


def test_a_host_that_cannot_be_forked_does_not_hold_up_a_drain() -> None:
    boot: Any = SimpleNamespace(node=NODE, app="proj", settings={"hosts": 1})

    async def play() -> None:
        pool = HostPool(boot, NoProcesses(), Scene().supervisor, lambda: 0.0)  # type: ignore[arg-type]
        pool.start_shared()
        await asyncio.sleep(0.01)
        pool.kill_all()
        await asyncio.wait_for(pool.wait_dead(), 5.0)

    asyncio.run(play())
