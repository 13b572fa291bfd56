"""Measure whether the right daemon of 1,000 is named when it blocks the loop, and the cost of watching the loop."""

import asyncio
import gc
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery_daemons.domain.names import DaemonName, LauncherName, Token
from celery_daemons.host.current_run import Run
from celery_daemons.host.frames import step_frames
from celery_daemons.host.stall_log import StallLog
from celery_daemons.host.stall_watch import StallWatch
from celery_daemons.host.step_clock import new_loop
from celery_daemons.host.watcher import Watcher
from celery_daemons.wire.inspection import Refusal
from celery_daemons.wire.loop_messages import Stalled
from tests.benchmarks.rows import Row, spread

_DAEMONS = 1000
#: Seconds for which a daemon blocks the loop: what counts as a stall.
_BLOCK = 0.1
#: Seconds in which a stall has to be reported.
_REPORTED = 2.0


class _Quiet(StallLog):
    """Writes nothing, because a thousand warnings would hide the table."""

    def _warn(self, run: Run | None, what: str, frames: Any, others: int) -> None:
        pass


def measure() -> Iterator[Row]:
    """Measure the stalls that were attributed wrongly or not at all, and the processor time of the watcher."""
    yield naming(1000)
    yield cost()


def naming(trials: int) -> Row:
    """Let random daemons block the loop, one after the other, and compare what is reported."""
    named: list[list[str]] = []
    chosen: list[str] = []

    async def trial_after_trial(blockers: dict[str, asyncio.Event], sent: list[Any]) -> None:
        rng = random.Random(1)
        for _ in range(trials):
            name = rng.choice(list(blockers))
            sent.clear()
            blockers[name].set()
            deadline = time.monotonic() + _BLOCK + _REPORTED
            while not any(isinstance(message, Stalled) for message in sent) and time.monotonic() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            # What is reported late, or for a second daemon, counts too.
            await asyncio.sleep(0.06)
            chosen.append(name)
            named.append([item[0] for message in sent if isinstance(message, Stalled) for item in message.items])

    _with_daemons(trial_after_trial)
    wrong = sum(names != [name] for names, name in zip(named, chosen, strict=True))
    return Row(f"stalls of {_BLOCK:g} s not named rightly, of {trials:,}", 100 * wrong / trials, "%", 1.0)


def cost(*, seconds: float = 5.0, rounds: int = 4) -> Row:
    """Return the processor time that the watch adds to a loop whose daemons tick once a second each."""
    shares: list[float] = []

    async def rounds_of_rest(_blockers: dict[str, asyncio.Event], _sent: list[Any]) -> None:
        await asyncio.sleep(1)
        for _ in range(rounds):
            before = time.process_time()
            await asyncio.sleep(seconds)
            shares.append((time.process_time() - before) / seconds * 100)

    _with_daemons(rounds_of_rest, watched=False)
    plain = min(shares)
    shares.clear()
    _with_daemons(rounds_of_rest)
    added = [share - plain for share in shares]
    return spread(f"the watch of a loop with {_DAEMONS:,} ticking daemons, processor time", added, "%", 1.0)


def _with_daemons(program: Callable[[dict[str, asyncio.Event], list[Any]], Any], *, watched: bool = True) -> None:
    """Run a program beside 1,000 daemons, each of which ticks and blocks the loop once its event is set."""
    loop, clock = (new_loop()) if watched else (asyncio.new_event_loop(), None)
    sent: list[Any] = []
    if clock is not None:
        thread = threading.get_ident()
        watch = StallWatch(clock, send=sent.append, stack=lambda: step_frames(thread), log=_Quiet())
        Watcher(
            send=sent.append, stack_of=lambda _name: Refusal(why="not here"), watch=watch, count=lambda: _DAEMONS
        ).start()
    blockers: dict[str, asyncio.Event] = {}

    async def daemon(event: asyncio.Event) -> None:
        await asyncio.sleep(random.random())
        while True:
            try:
                async with asyncio.timeout(1.0):
                    await event.wait()
            except TimeoutError:
                continue
            event.clear()
            time.sleep(_BLOCK)  # noqa: ASYNC251 - the mistake whose report is measured

    async def run() -> None:
        tasks = []
        for number in range(_DAEMONS):
            name = DaemonName(f"daemon.{number}")
            blockers[name] = asyncio.Event()
            with Run(name, LauncherName("bench"), Token(1)).active():
                tasks.append(loop.create_task(daemon(blockers[name])))
        await program(blockers, sent)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The objects of the process that measures are none of a host. A collection that visits them blocks the loop too.
    gc.collect()
    gc.freeze()
    try:
        loop.run_until_complete(run())
    finally:
        gc.unfreeze()
    loop.close()
