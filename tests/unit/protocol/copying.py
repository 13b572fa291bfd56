"""Copies of a world with its server, its agents and its monitors, as bytes: faster than a replay from the start.

All copies share the objects that never change. A coroutine cannot be copied: heartbeats must be answered at once, or
never.
"""

import copyreg
import io
import pickle
import random
from collections.abc import Callable
from typing import Any

from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.ring import Ring
from celery_daemons.launcher import Registry
from celery_daemons.settings import Settings
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.clock import Clock
from tests.unit.protocol.config import NoJitter
from tests.unit.protocol.double import Double
from tests.unit.protocol.world import World

#: Immutable, or shared on purpose: the server and its clock are one, and their data is copied beside the world.
SHARED = (
    Clock,
    Double,
    Keys,
    LauncherOptions,
    NoJitter,
    random.Random,
    Registry,
    Ring,
    ScriptCall,
    Settings,
    Store,
)


class _SharedObjects:
    """The objects that copies refer to by number; they live as long as the process."""

    def __init__(self) -> None:
        self._objects: list[object] = []
        self._numbers: dict[int, int] = {}

    def reduce(self, shared: object) -> tuple[Callable[[int], object], tuple[int]]:
        """Return how a copy finds the object again."""
        number = self._numbers.setdefault(id(shared), len(self._objects))
        if number == len(self._objects):
            self._objects.append(shared)
        return _find, (number,)

    def find(self, number: int) -> object:
        """Return an object by its number."""
        return self._objects[number]


_shared = _SharedObjects()
_dispatch_table: dict[type, Callable[[Any], Any]] = copyreg.dispatch_table | dict.fromkeys(SHARED, _shared.reduce)


def _find(number: int) -> object:
    return _shared.find(number)


def copy_scene(world: World, scene: object) -> bytes:
    """Return a copy of what refers to a world, with the server's data and the time."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _dispatch_table
    clock = world.clock
    pickler.dump((clock, clock.now, clock.ahead, world.double, dict(world.double.read(clock.server)), scene))
    return buffer.getvalue()


def restore_scene(copied: bytes) -> Any:
    """Set the clock and the server back, and return what was copied."""
    clock, now, ahead, double, data, scene = pickle.loads(copied)  # noqa: S301 - written by copy_scene()
    clock.now, clock.ahead = now, ahead
    double.replace(data)
    return scene
