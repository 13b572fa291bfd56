"""Check the numbers of daemons that the scripts keep against the monitor's copy of the records, and repair them."""

import logging
from typing import Final

from celery_daemons.domain import counts
from celery_daemons.domain.names import DaemonName, Epoch
from celery_daemons.store import listing, summary
from celery_daemons.store.connection import Store
from celery_daemons.store.replica import Replica
from celery_daemons.store.script import BATCH

logger = logging.getLogger(__name__)

#: Differences that a warning names.
_NAMED: Final = 5


class CountsCheck:
    """Compares the counts with the records after the records were read from scratch, and when the total is wrong.

    The verbs keep the counts. They can be wrong only after records or counts were changed by hand, or if the data is
    from a release without counts.
    """

    def __init__(self, *, store: Store, epoch: Epoch, snapshot: Replica) -> None:
        self._store = store
        self._epoch = epoch
        self._snapshot = snapshot
        self._due = False

    def request(self) -> None:
        """Compare at the next :meth:`run_due`."""
        self._due = True

    def note_total(self, counted: int) -> None:
        """Compare at the next :meth:`run_due` unless as many daemons are counted as there are specs."""
        if counted != len(self._snapshot.specs):
            self._due = True

    def run_due(self) -> None:
        """Compare if that is due. Takes a moment with many daemons, so call it while there is nothing else to do."""
        if not self._due:
            return
        found = self._store.run(summary.summary(self._store.keys))
        if (found.position or "0-0") != self._snapshot.position:
            # The copy lacks a change that is counted already: try again later.
            return
        self._due = False
        actual = counts.counted(self._snapshot.specs, self._snapshot.book)
        changes = [(field, actual[field] - found.counts.get(field, 0)) for field in actual.keys() | found.counts.keys()]
        self._repair(sorted((field, change) for field, change in changes if change), self._doubtful())

    def _doubtful(self) -> list[DaemonName]:
        """Return the daemons whose index entry or mark may be wrong; the repair checks each of them again."""
        specs, book = self._snapshot.specs, self._snapshot.book
        marked = {name for name, row in book.items() if counts.is_marked_wrongly(specs.get(name), row)}
        indexed, needed = listing.unhealthy(self._store).items(), counts.unhealthy(book).items()
        return sorted(marked | {name for name, _ in indexed ^ needed})

    def _repair(self, changes: list[tuple[str, int]], names: list[DaemonName]) -> None:
        if not changes and not names:
            return
        logger.warning(
            "counts of daemons: %d wrong numbers and %d wrong marks, correcting them (%s)",
            len(changes),
            len(names),
            "; ".join([*(f"{field} by {change:+d}" for field, change in changes), *names][:_NAMED]),
        )
        for start in range(0, max(1, len(names)), BATCH):
            batch = names[start : start + BATCH]
            self._store.run(summary.repair(self._store.keys, self._epoch, changes if start == 0 else [], batch))
