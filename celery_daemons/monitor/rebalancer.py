"""Decide when to move daemons that could stay: after a quiet period, a few at once, the next when those run again."""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from celery_daemons.domain.names import DaemonName, Token
from celery_daemons.domain.planner import Planner, Snapshot
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.monitor.quiet_period import QuietPeriod
from celery_daemons.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds after which the next wave starts although daemons of the last one have not arrived: one may be slow to stop.
_WAVE_TIMEOUT: Final = 30.0
#: The least seconds between two plans while nothing is to be moved: a plan may visit every daemon.
_REPLAN_INTERVAL: Final = 1.0
#: A move is over once the daemon is in one of these states under a new token, or has no way to get there.
_ARRIVED: Final = frozenset(
    (DaemonStatus.RUNNING, DaemonStatus.BACKOFF, DaemonStatus.FAILED, DaemonStatus.UNPLACEABLE, DaemonStatus.STOPPED)
)


class Rebalancer:
    """Decide which daemons to move next. Pure but for log messages: events come in, moves go out.

    A plan is made once and carried out in waves, as long as no node comes or goes. A new plan after each wave would
    stop too early: as soon as the nodes are no longer uneven enough to begin. The next monitor makes its own plan.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        snapshot: Snapshot,
        planner: Planner,
        quiet_period: QuietPeriod,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._planner = planner
        self._quiet_period = quiet_period
        self._clock = clock
        self._next_plan_at = 0.0
        self._wave_ends_at = 0.0
        self._requested = False
        self._paused = False
        #: The last plan was empty and nothing has changed since. A new plan would visit every daemon if some node holds
        #: few that no other node can give it, and an idle cluster must cause no work per daemon.
        self._at_rest = False
        self._planned: deque[Move] = deque()
        self._moving: dict[DaemonName, Move] = {}
        #: The tokens under which the moving daemons ran at their source.
        self._tokens: dict[DaemonName, Token] = {}

    @property
    def moving(self) -> Mapping[DaemonName, Move]:
        """Return the moves under way; a moving daemon starts at the target once the source has released the daemon."""
        return self._moving

    def nodes_changed(self) -> None:
        """Drop the plan and wait for a quiet period: a node that flaps must not cause moves."""
        self._quiet_period.on_nodes(self._snapshot.nodes)
        self._next_plan_at = 0.0
        self._at_rest = False
        self._planned.clear()

    def daemons_changed(self) -> None:
        """Allow a new plan: there may be something to move again."""
        self._at_rest = False

    def rebalance_requested(self) -> None:
        """Plan now, to within a tenth of the fair shares."""
        self._requested = True
        self._next_plan_at = 0.0

    def pause_changed(self, *, paused: bool) -> None:
        """Start no waves while rebalancing is paused."""
        self._paused = paused

    @property
    def next_wave_at(self) -> float:
        """Return when there may be something to do if nothing happens before, on the clock."""
        if self._moving:
            return self._wave_ends_at
        if self._paused or self._settings.rebalance == "off":
            return math.inf
        if self._requested or self._planned:
            return self._next_plan_at
        if self._settings.rebalance == "auto":
            return math.inf if self._at_rest else max(self._next_plan_at, self._quiet_period.ends_at)
        return math.inf

    def next_wave(self) -> list[Move]:
        """Return the moves to begin now: recall these daemons; once released, the planner places each at the target."""
        now = self._clock()
        timed_out = now >= self._wave_ends_at
        for name in [name for name in self._moving if self._is_over(name, timed_out=timed_out)]:
            self.move_ended(name)
        if now < self.next_wave_at:
            return []
        if self._paused:
            self._wave_ends_at = now + _WAVE_TIMEOUT
            return []
        if not self._planned:
            self._make_plan(now)
        limit = max(1, int(self._settings.rebalance_limit * len(self._snapshot.book)))
        wave: list[Move] = []
        while self._planned and len(self._moving) + len(wave) < limit:
            move = self._planned.popleft()
            if move.name not in self._moving and self._runs_at_source(move):
                wave.append(move)
        self._wave_ends_at = now + _WAVE_TIMEOUT
        for move in wave:
            self._moving[move.name] = move
            self._tokens[move.name] = self._snapshot.book[move.name].token
        return wave

    def move_ended(self, name: DaemonName) -> None:
        """Forget a move: the daemon has arrived, or could not be recalled."""
        self._moving.pop(name, None)
        self._tokens.pop(name, None)
        self._at_rest = False

    def _make_plan(self, now: float) -> None:
        self._planned.extend(self._planner.moves(even=self._requested, moving=self._moving))
        if self._planned:
            logger.info("rebalance: moving %d daemons", len(self._planned))
        else:
            self._next_plan_at = now + max(_REPLAN_INTERVAL, self._settings.settle_delay)
            self._at_rest = True
        if self._requested and not self._planned:
            logger.info("rebalance: nothing to move, every node holds about its share")
        self._requested = False

    def _runs_at_source(self, move: Move) -> bool:
        row = self._snapshot.book.get(move.name)
        return row is not None and row.node == move.source and row.status is DaemonStatus.RUNNING

    def _is_over(self, name: DaemonName, *, timed_out: bool) -> bool:
        spec, row = self._snapshot.specs.get(name), self._snapshot.book.get(name)
        if spec is None or spec.desired is Desired.STOPPED or row is None:
            return True
        # While the recall is on its way through the journal, the snapshot shows the daemon running at its source. If it
        # still does so after the timeout, the recall was never carried out: Redis did not answer.
        return row.status in _ARRIVED and (timed_out or row.node is None or row.token != self._tokens[name])
