"""When to move what may stay where it is: after a quiet time, a few at once, each running again before the next go."""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from celery_daemons.domain.balance import Move
from celery_daemons.domain.names import DaemonName
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.monitor.plan import Planner
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


class Balancer:
    """Decides which daemons are moved next. Knows nothing that its successor would miss: it looks at what is."""

    def __init__(self, settings: Settings, replica: Replica, planner: Planner, proven: Callable[[], None]) -> None:
        self._settings = settings
        self._replica = replica
        self._planner = planner
        self._proven = proven
        self._quiet_from = time.monotonic()
        self._look_at = 0.0
        self._wave_until = 0.0
        self._asked = False
        self.paused = False
        #: The tokens under which daemons ran that are on their way.
        self._tokens: dict[DaemonName, str] = {}

    def nodes_changed(self) -> None:
        """Let nodes come to rest first: one that flaps shall cause no moves."""
        self._quiet_from = time.monotonic()
        self._look_at = 0.0

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
        if self._asked:
            return self._look_at
        if self._settings.rebalance == "auto":
            return max(self._look_at, self._quiet_from + self._settings.settle_delay)
        return math.inf

    def next_wave(self) -> list[Move]:
        """What to recall now, if anything; each is placed where it shall go once it has been released."""
        now = time.monotonic()
        moving = self._planner.moving
        for name in [name for name in moving if self._is_over(name)]:
            del moving[name]
        if now < self.next_look or self.paused:
            return []
        moves = [move for move in self._planner.moves(even=self._asked) if move.name not in moving]
        self._proven()
        if not moves:
            self._look_at = now + max(_LOOK, self._settings.settle_delay)
            if self._asked and not moving:
                logger.info("rebalance: nothing to move")
                self._asked = False
            return []
        limit = max(1, int(self._settings.rebalance_limit * len(self._replica.book)))
        wave = moves[: max(0, limit - len(moving))]
        self._wave_until = now + _PATIENCE
        moving.update({move.name: move for move in wave})
        self._tokens = {name: self._tokens.get(name) or self._replica.book[name].token for name in moving}
        if wave:
            logger.info(
                "rebalance: moving %d of %d daemons that should, at most %d at once", len(wave), len(moves), limit
            )
        return wave

    def refused(self, name: DaemonName) -> None:
        """A daemon cannot be recalled: it is no longer where it was."""
        self._planner.moving.pop(name, None)

    def _is_over(self, name: DaemonName) -> bool:
        spec, row = self._replica.specs.get(name), self._replica.book.get(name)
        if spec is None or spec.desired is Desired.STOPPED or row is None:
            return True
        # While the recall is on its way through the journal, the copy shows it running at its old place.
        return row.status in _ARRIVED and (row.node is None or row.token != self._tokens[name])
