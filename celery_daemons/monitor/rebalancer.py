"""When to move what may stay where it is: after a quiet time, a few at once, each running again before the next go."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.monitor.quiet_period import QuietPeriod
from celery_daemons.settings import Settings
from celery_daemons.store.replica import Replica

logger = logging.getLogger(__name__)

#: Seconds after which a wave no longer waits for those of it that have not arrived: one may take long to stop.
_PATIENCE: Final = 30.0
#: The least seconds between two looks that found nothing to move.
_LOOK: Final = 1.0
#: A daemon on its way is at its goal once it is there in one of these, or has no way to get there.
_ARRIVED: Final = frozenset(
    (DaemonStatus.RUNNING, DaemonStatus.BACKOFF, DaemonStatus.FAILED, DaemonStatus.UNPLACEABLE, DaemonStatus.STOPPED)
)


class Rebalancer:
    """Decides which daemons are moved next.

    A plan is made once and carried out in waves, as long as no node comes or goes: made anew after each wave, it would
    end as soon as nodes are no longer so uneven that one would begin. A successor makes its own.
    """

    def __init__(self, settings: Settings, replica: Replica, planner: Planner, proven: Callable[[], None]) -> None:
        self._settings = settings
        self._replica = replica
        self._planner = planner
        self._proven = proven
        self.settling = QuietPeriod(settings.settle_delay, time.monotonic)
        self._look_at = 0.0
        self._wave_until = 0.0
        self._asked = False
        #: Nothing was to be moved, and nothing has changed since: a look goes over all daemons if a node holds few that
        #: no other can spare, and standing still must not cost by the daemon.
        self._at_rest = False
        self._plan: deque[Move] = deque()
        self.paused = False
        #: The tokens under which daemons ran that are on their way.
        self._tokens: dict[DaemonName, Token] = {}

    def nodes_changed(self) -> None:
        """Let nodes come to rest first: one that flaps shall cause no moves."""
        self.settling.see(self._replica.nodes)
        self._look_at = 0.0
        self._at_rest = False
        self._plan.clear()

    def daemons_changed(self) -> None:
        """There may be something to move again."""
        self._at_rest = False

    def ask(self) -> None:
        """Somebody wants the nodes evened out, now."""
        self._asked = True
        self._look_at = 0.0

    @property
    def next_look(self) -> float:
        """When there may be something to do, in monotonic seconds, if nothing happens before."""
        if self._planner.moving:
            return self._wave_until
        if self.paused or self._settings.rebalance == "off":
            return math.inf
        if self._asked or self._plan:
            return self._look_at
        if self._settings.rebalance == "auto":
            return math.inf if self._at_rest else max(self._look_at, self.settling.at)
        return math.inf

    def next_wave(self) -> list[Move]:
        """What to recall now, if anything; each is placed where it shall go once it has been released."""
        now = time.monotonic()
        moving = self._planner.moving
        late = now >= self._wave_until
        for name in [name for name in moving if self._is_over(name, late=late)]:
            self.done(name)
        if now < self.next_look:
            return []
        if self.paused:
            self._wave_until = now + _PATIENCE
            return []
        if not self._plan:
            self._make_plan(now)
        limit = max(1, int(self._settings.rebalance_limit * len(self._replica.book)))
        wave: list[Move] = []
        while self._plan and len(moving) + len(wave) < limit:
            move = self._plan.popleft()
            if move.name not in moving and self._is_there(move):
                wave.append(move)
        self._wave_until = now + _PATIENCE
        for move in wave:
            moving[move.name] = move
            self._tokens[move.name] = self._replica.book[move.name].token
        return wave

    def _make_plan(self, now: float) -> None:
        self._plan.extend(self._planner.moves(even=self._asked))
        self._proven()
        if self._plan:
            logger.info("rebalance: %d daemons move", len(self._plan))
        else:
            self._look_at = now + max(_LOOK, self._settings.settle_delay)
            self._at_rest = True
        if self._asked and not self._plan:
            logger.info("rebalance: every node holds about its share")
        self._asked = False

    def _is_there(self, move: Move) -> bool:
        row = self._replica.book.get(move.name)
        return row is not None and row.node == move.source and row.status is DaemonStatus.RUNNING

    def done(self, name: DaemonName) -> None:
        """A daemon is not on its way any more: it has arrived, or could not be recalled."""
        self._planner.moving.pop(name, None)
        self._tokens.pop(name, None)
        self._at_rest = False

    def _is_over(self, name: DaemonName, *, late: bool) -> bool:
        spec, row = self._replica.specs.get(name), self._replica.book.get(name)
        if spec is None or spec.desired is Desired.STOPPED or row is None:
            return True
        # While the recall is on its way through the journal, the copy shows it running at its old place. If it does so
        # long after, the recall was never carried out: Redis did not answer.
        return row.status in _ARRIVED and (late or row.node is None or row.token != self._tokens[name])
