"""Run an agent's coroutines step by step: every call to the server is a step that the model carries out."""

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

from celery_daemons.errors import StoreUnavailable
from celery_daemons.node import node_lease as lease_module
from celery_daemons.store.script import ScriptCall
from tests.unit.protocol.world import Audit, Fate, Flight, ModelPin, World

if TYPE_CHECKING:
    from tests.unit.protocol.agents import ModelAgent


class _Step:
    """Something that a coroutine waits for: a call to the server, or time."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.what)


class ModelStore:
    """An agent's way to the server."""

    def __init__(self, world: World) -> None:
        self.keys = world.keys
        self.pin = ModelPin(world)

    async def check(self) -> None:
        """Accept any server."""

    async def run(self, call: ScriptCall[Any]) -> Any:
        """Let the model carry out a call."""
        return await _Step(call)


class Caller:
    """Runs the coroutines of one agent, one at a time."""

    def __init__(self, world: World, agent: "ModelAgent", store: ModelStore, name: str) -> None:
        self._world = world
        self._agent = agent
        self._store = store
        self._name = name
        #: An answer to the running coroutine is on its way.
        self.waiting = False

    def clock(self) -> Any:
        """Let the lease's module read the agent's clock, take the agent's name and wait by the model, for a while."""
        return mock.patch.multiple(
            lease_module,
            lease_clock=self._read_clock,
            secrets=SimpleNamespace(token_hex=self._incarnation),
            asyncio=SimpleNamespace(sleep=_Step),
        )

    def run(
        self,
        coroutine: Coroutine[Any, Any, Any],
        fates: Sequence[Fate],
        done: Callable[[Any], None],
        audit: Audit | None = None,
    ) -> None:
        """Run a coroutine; the calls have these fates, and further ones are answered promptly.

        The first call that is carried out is audited.
        """
        self._continue(coroutine, self._advance(coroutine, None, done), deque(fates), done, audit)

    def _continue(
        self,
        coroutine: Coroutine[Any, Any, Any],
        step: Any,
        fates: deque[Fate],
        done: Callable[[Any], None],
        audit: Audit | None,
    ) -> None:
        while isinstance(step, ScriptCall):
            if self._store.pin.server != self._world.server:
                step = self._advance(coroutine, StoreUnavailable("another server"), done)
                continue
            fate = fates.popleft() if fates else "prompt"
            if fate == "late":
                self._world.flights.append(Flight(self._agent, partial(self._world.carry_out, step, audit)))
                step = self._advance(coroutine, StoreUnavailable("no answer"), done)
                continue
            answer = self._world.carry_out(step, audit)
            audit = None
            if fate == "slow":
                self.waiting = True
                self._world.flights.append(Flight(self._agent, partial(self._resume, coroutine, answer, fates, done)))
                return
            step = self._advance(coroutine, StoreUnavailable("no answer") if fate == "lost" else answer, done)
        if step is not None:
            # It waits for time to pass: an agent that cannot join. The worker starts another.
            coroutine.close()
            self._agent.kill()

    def _resume(
        self, coroutine: Coroutine[Any, Any, Any], answer: Any, fates: deque[Fate], done: Callable[[Any], None]
    ) -> None:
        self.waiting = False
        if self._agent.alive:
            self._continue(coroutine, self._advance(coroutine, answer, done), fates, done, None)
        else:
            coroutine.close()

    def _advance(self, coroutine: Coroutine[Any, Any, Any], answer: Any, done: Callable[[Any], None]) -> Any:
        """Give a coroutine an answer; return what it waits for next, ``None`` once it is done."""
        with self.clock():
            try:
                if isinstance(answer, Exception):
                    return coroutine.throw(answer)
                return coroutine.send(answer)
            except StopIteration as stop:
                result = stop.value
        done(result)
        return None

    def _read_clock(self) -> float:
        return self._agent.now

    def _incarnation(self, _size: int) -> str:
        return self._name
