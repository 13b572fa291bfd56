"""Explore a small world exhaustively, breadth first: every order of events, as far as the time suffices.

    python -m tests.unit.protocol.explore --seconds 120

Every invariant is checked in every state, and every answer of the server is audited. States with one canonical form are
one: see canonical.py for what that leaves out. States are copied instead of being reached again from the start: a copy
takes as long as one call to the server, and many calls lead to a state. Seconds are processor time.
"""

import argparse
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from celery_daemons.domain.names import DaemonName
from celery_daemons.settings import Settings
from tests.unit.protocol.clock import Clock, virtual_time
from tests.unit.protocol.config import LONG, SETTINGS
from tests.unit.protocol.copying import copy_scene, restore_scene
from tests.unit.protocol.double import Double
from tests.unit.protocol.scene import ONE_OF_EACH, Act, Loss, Rations, Scene
from tests.unit.protocol.world import Broken, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Corner:
    """A world to explore: what can be lost, how often each accident may happen, and the settings of the two nodes.

    ``share`` is that of the time for all of them.
    """

    title: str
    share: float
    rations: Rations
    loss: Loss = "data"
    settings: tuple[Settings, ...] = ()


#: Worlds with one kind of accident or two, which can be explored further than the one with all of them.
CORNERS = (
    Corner(title="a lost or late message", share=0.05, rations=Rations(messages=1)),
    Corner(title="an action of a user", share=0.08, rations=Rations(users=1)),
    Corner(title="a crash", share=0.08, rations=Rations(crashes=1)),
    Corner(title="a node cut off", share=0.08, rations=Rations(cuts=1)),
    Corner(title="a loss of data", share=0.08, rations=Rations(losses=1)),
    Corner(title="a fail-over", share=0.08, rations=Rations(losses=1), loss="primary"),
    Corner(title="a snapshot of any age", share=0.05, rations=Rations(losses=1, saves=1, users=1), loss="primary"),
    Corner(title="a failed run, with a lost or late message", share=0.08, rations=Rations(failures=1, messages=1)),
    Corner(title="Redis's clock set, with a crash", share=0.08, rations=Rations(steps=1, crashes=1)),
    Corner(title="forks that fail, with a failed run", share=0.05, rations=Rations(shortages=1, failures=1)),
    Corner(
        title="leases of two lengths, with a loss of data",
        share=0.05,
        rations=Rations(losses=1, cuts=1),
        settings=(SETTINGS, LONG),
    ),
    Corner(title="one accident of each kind, with a loss of data", share=0.12, rations=ONE_OF_EACH),
    Corner(title="one accident of each kind, with a fail-over", share=0.12, rations=ONE_OF_EACH, loss="primary"),
)


@dataclass(slots=True)
class Found:
    """The result of an exploration."""

    #: The number of states by the fewest acts that lead to them.
    by_depth: list[int] = field(default_factory=lambda: [1])
    transitions: int = 0
    #: Every action was tried in all states with fewer acts than this.
    depth: int = 0
    seconds: float = 0.0
    #: Every reachable state was reached.
    complete: bool = False

    @property
    def states(self) -> int:
        """Return the number of different states."""
        return sum(self.by_depth)

    def add(self, depth: int) -> None:
        """Count a new state."""
        if depth == len(self.by_depth):
            self.by_depth.append(0)
        self.by_depth[depth] += 1

    def __str__(self) -> str:
        end = f"complete, depth {len(self.by_depth) - 1}" if self.complete else f"complete to depth {self.depth}"
        return f"{self.states} states, {end}, {self.transitions} transitions in {self.seconds:.0f} s {self.by_depth}"


def explore(
    double: Double,
    clock: Clock,
    *,
    seconds: float,
    loss: Loss,
    rations: Rations,
    daemon: str = "y",
    settings: Sequence[Settings] = (),
) -> Found:
    """Explore one world; raise Broken, with the shortest story, if an invariant does not hold.

    The daemon "y" runs in a process of its own, "x" in a shared host.
    """
    began = time.process_time()
    first = Scene(World(double, clock), daemon=DaemonName(daemon), loss=loss, rations=rations, settings=settings)
    found = Found()
    seen = {first.form()}
    queue: deque[tuple[bytes, tuple[Act, ...]]] = deque([(copy_scene(first.world, first), ())])
    while queue and time.process_time() - began < seconds:
        copied, story = queue.popleft()
        found.depth = len(story)
        scene: Scene = restore_scene(copied)
        for act in list(scene.acts()):
            scene = restore_scene(copied)
            _carry_out(scene, act, story)
            found.transitions += 1
            form = scene.form()
            if form not in seen:
                seen.add(form)
                found.add(len(story) + 1)
                queue.append((copy_scene(scene.world, scene), (*story, act)))
    found.complete = not queue
    found.seconds = time.process_time() - began
    return found


def _carry_out(scene: Scene, act: Act, story: tuple[Act, ...]) -> None:
    name, *arguments = act
    try:
        getattr(scene, name)(*arguments)
        scene.check()
    except Exception as error:
        acts = [" ".join(one) for one in (*story, act)]
        raise Broken(f"{error}; after {len(acts)} acts: {', '.join(acts)}") from error


def explore_all(double: Double, clock: Clock, *, seconds: float) -> Iterator[str]:
    """Explore all :data:`CORNERS`, and yield a line about each; time that one leaves is given to the next."""
    left, shares = seconds, 1.0
    for corner in CORNERS:
        found = explore(
            double,
            clock,
            seconds=left * corner.share / shares,
            loss=corner.loss,
            rations=corner.rations,
            settings=corner.settings,
        )
        left, shares = left - found.seconds, shares - corner.share
        yield f"{corner.title}: {found}"


def main() -> int:
    """Explore for the time given, and print what was found."""
    parser = argparse.ArgumentParser(description="Explore a small world of the protocol exhaustively.")
    parser.add_argument("--seconds", type=float, default=120, help="processor time in all (120)")
    options = parser.parse_args()
    # The product warns of every accident.
    logging.disable()
    with virtual_time() as clock:
        for line in explore_all(Double(), clock, seconds=options.seconds):
            print(line, flush=True)  # noqa: T201 - a program that prints its results
    return 0


if __name__ == "__main__":
    sys.exit(main())
