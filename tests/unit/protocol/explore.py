"""Explore a small world exhaustively, breadth first: every order of what may happen, as far as the time suffices.

    python -m tests.unit.protocol.explore --seconds 120

Every invariant is checked in every state, and every answer of the server is audited. States with one canonical form
are one: see canonical.py for what that leaves out. States are copied, not reached again from the start: a copy takes as
long as one call to the server, and the way to a state has many. Seconds are those of the processor.
"""

import argparse
import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from celery_daemons.domain.names import DaemonName
from tests.unit.protocol.clock import Clock, virtual_time
from tests.unit.protocol.copying import copy_scene, restore_scene
from tests.unit.protocol.double import Double
from tests.unit.protocol.scene import ONE_OF_EACH, Act, Loss, Rations, Scene
from tests.unit.protocol.world import Broken, World

#: Worlds with one kind of accident or two, which can be explored further than the one with all of them; and the share
#: of the time for each.
WORLDS: tuple[tuple[str, float, Loss, Rations], ...] = (
    ("a lost or late message", 0.05, "data", Rations(messages=1)),
    ("an action of a user", 0.1, "data", Rations(users=1)),
    ("a crash", 0.1, "data", Rations(crashes=1)),
    ("a node cut off", 0.1, "data", Rations(cuts=1)),
    ("a loss of data", 0.1, "data", Rations(losses=1)),
    ("a fail-over", 0.1, "primary", Rations(losses=1)),
    ("a failed run, with a lost or late message", 0.1, "data", Rations(failures=1, messages=1)),
    ("one accident of each kind, with a loss of data", 0.175, "data", ONE_OF_EACH),
    ("one accident of each kind, with a fail-over", 0.175, "primary", ONE_OF_EACH),
)


@dataclass(slots=True)
class Found:
    """What an exploration has found."""

    #: The number of states by the fewest acts that lead to them.
    by_depth: list[int] = field(default_factory=lambda: [1])
    transitions: int = 0
    #: All states with fewer acts than this have been left in every way.
    depth: int = 0
    seconds: float = 0.0
    #: Every state that can be reached was.
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


def explore(double: Double, clock: Clock, *, seconds: float, loss: Loss, rations: Rations, daemon: str = "y") -> Found:
    """Explore one world; raise Broken, with the shortest story, if an invariant does not hold.

    The daemon "y" runs in a process of its own, "x" in a shared host.
    """
    began = time.process_time()
    first = Scene(World(double, clock), daemon=DaemonName(daemon), loss=loss, rations=rations)
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
    """Explore every world of :data:`WORLDS`, and yield a line about each; time that one leaves is given to the next."""
    left, shares = seconds, 1.0
    for title, share, loss, rations in WORLDS:
        found = explore(double, clock, seconds=left * share / shares, loss=loss, rations=rations)
        left, shares = left - found.seconds, shares - share
        yield f"{title}: {found}"


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
