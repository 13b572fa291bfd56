"""What is asked of each contender, in the same words and by the same code."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final, Literal, NamedTuple

from tests.benchmarks.bare import times

#: How long a killed node's daemons are waited for.
LIMIT: Final = 30.0
#: How long all may take to run for the first time: the contender is broken if they do not.
SPAWN_LIMIT: Final = 120.0
#: Seconds between two checks of what runs; no time is measured more exactly than that.
EVERY: Final = 0.02
#: The names below this number are a contender's own, to have its processes started before the clock is.
WARM: Final = 4

#: What is killed of a node: its main process (a worker, a raylet), or every process at once, as a machine's loss would.
Fault = Literal["main", "all"]


class Life(NamedTuple):
    """One start of one daemon: where, and what no other start has."""

    node: str
    mark: object


class LookUp(NamedTuple):
    """A way to find a daemon by its name, and how often to try it."""

    call: Callable[[str], object]
    tries: int = 500


class Scene(ABC):
    """A contender at work: two nodes, and nothing on them yet."""

    @abstractmethod
    def spawn(self, names: Sequence[str]) -> None:
        """Ask for all of these; return before they run."""

    @abstractmethod
    def lives(self, names: Sequence[str]) -> Mapping[str, Life]:
        """Return the jobs that run, as the contender itself reports."""

    @abstractmethod
    def weigh(self, names: Sequence[str]) -> float:
        """Bytes that one of these costs."""

    @abstractmethod
    def look_ups(self) -> Mapping[str, LookUp]:
        """The ways to look up, from a client that has not spawned."""

    @abstractmethod
    def killable(self) -> Sequence[str]:
        """The nodes that may be killed."""

    @abstractmethod
    def kill(self, node: str, fault: Fault) -> None:
        """Kill it with SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One way to keep named daemons alive, with one choice of settings.

    ``settle`` seconds pass between the start of the last daemon and the kill; ``falls_whole`` says that no process
    outlives the main one, so that there is nothing more to kill.
    """

    title: str
    setting: str
    count: int
    scene: Callable[[], AbstractContextManager[Scene]]
    faults: tuple[Fault, ...] = ("main", "all")
    rounds: int = 2
    settle: float = 1.0
    falls_whole: bool = False


@dataclass(slots=True)
class Result:
    """Every sample of one contender.

    ``away_s`` holds ``None`` where not all of the ``killed`` were back within the limit.
    """

    title: str
    setting: str
    count: int
    per_second: list[float] = field(default_factory=list)
    bytes_each: list[float] = field(default_factory=list)
    look_up_s: dict[str, list[float]] = field(default_factory=dict)
    away_s: dict[str, list[float | None]] = field(default_factory=dict)
    killed: dict[str, list[int]] = field(default_factory=dict)
    falls_whole: bool = False


def measure(contender: Contender, rounds: int | None = None) -> Result:
    """Start a new scene for each kill; stop after the first kill from which the daemons do not recover."""
    result = Result(contender.title, contender.setting, contender.count, falls_whole=contender.falls_whole)
    for fault in contender.faults:
        away = result.away_s[fault] = []
        for _ in range(min(rounds or contender.rounds, contender.rounds)):
            with contender.scene() as scene:
                away.append(_one_round(contender, scene, fault, result))
            if away[-1] is None:
                break
    return result


def _one_round(contender: Contender, scene: Scene, fault: Fault, result: Result) -> float | None:
    names = [f"rest.{number}" for number in range(WARM, WARM + contender.count)]
    began = time.monotonic()
    scene.spawn(names)
    for lives in _watch(scene, names, SPAWN_LIMIT):
        if len(lives) == len(names):
            break
    else:
        raise TimeoutError(f"{contender.title}, {contender.setting}: not all ran within {SPAWN_LIMIT:g} s")
    result.per_second.append(len(names) / (time.monotonic() - began))
    time.sleep(contender.settle)
    result.bytes_each.append(scene.weigh(names))
    for label, (call, tries) in scene.look_ups().items():
        assert call(names[0]), f"{contender.title}, {contender.setting}: {label} does not find what runs"
        result.look_up_s.setdefault(label, []).extend(_look_up(call, names, tries))
    lives = scene.lives(names)
    homes = Counter(life.node for life in lives.values())
    victim = max(scene.killable(), key=lambda node: homes[node])
    lost = [name for name in names if lives[name].node == victim]
    result.killed.setdefault(fault, []).append(len(lost))
    began = time.monotonic()
    scene.kill(victim, fault)
    for now in _watch(scene, lost, LIMIT):
        if all(name in now and now[name].mark != lives[name].mark for name in lost):
            return time.monotonic() - began
    return None


def _look_up(call: Callable[[str], object], names: Sequence[str], tries: int) -> list[float]:
    asked = cycle(names)
    return times(lambda: call(next(asked)), tries)


def _watch(scene: Scene, names: Sequence[str], within: float) -> Iterator[Mapping[str, Life]]:
    """Check what runs until the time is over."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        yield scene.lives(names)
        time.sleep(EVERY)
