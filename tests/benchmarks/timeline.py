"""What happened when, read from the journal: Redis's time for everything, at no cost to what is measured."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from celery_daemons.domain.records import JournalEntry
from celery_daemons.store import journal
from celery_daemons.store.connection import Store


@dataclass(slots=True)
class Stretch:
    """From the first to the last entry of one event; ``items`` are the daemons that they name."""

    first_ms: int
    last_ms: int
    entries: int = 0
    items: int = 0


def server_ms(store: Store) -> int:
    """Return the time of Redis's clock, in Unix milliseconds."""
    seconds, micros = store.read(lambda client: client.time())
    return int(seconds) * 1000 + int(micros) // 1000


class Timeline:
    """Follows the journal from the moment it is made."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._position = journal.last_id(store)
        self.began_ms = server_ms(store)
        self.last_ms = self.began_ms
        self.stretches: dict[str, Stretch] = {}

    def until(self, done: Callable[[JournalEntry], bool], within: float) -> None:
        """Follow until an entry of which ``done`` says so."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for entry in journal.follow(self._store, self._position, block_ms=100, count=20):
                self._position = entry.id
                self._note(entry)
                if done(entry):
                    return
        raise TimeoutError(f"not within {within:g} s; so far: {self.stretches}")

    def until_running(self, names: int | Collection[str], within: float = 120.0) -> float:
        """Follow until so many daemons, or these, are reported as running; seconds from the beginning to the last."""
        missing = None if isinstance(names, int) else set(names)
        left = names if isinstance(names, int) else len(names)
        if not left:
            return 0.0

        def done(entry: JournalEntry) -> bool:
            nonlocal left
            if entry.event == "report":
                back = {item[0] for item in entry.items if item[2] == "running"}
                if missing is None:
                    left -= len(back)
                else:
                    missing.difference_update(back)
                    left = len(missing)
            return left <= 0

        self.until(done, within)
        return (self.last_ms - self.began_ms) / 1000

    def until_event(self, event: str, within: float = 30.0) -> float:
        """Follow until an event; seconds from the beginning."""
        self.until(lambda entry: entry.event == event, within)
        return (self.last_ms - self.began_ms) / 1000

    def seconds(self, event: str, *, last: bool = True) -> float:
        """Seconds from the beginning to the last (or first) entry of an event."""
        stretch = self.stretches[event]
        return ((stretch.last_ms if last else stretch.first_ms) - self.began_ms) / 1000

    def _note(self, entry: JournalEntry) -> None:
        self.last_ms = entry.at_ms
        stretch = self.stretches.setdefault(entry.event, Stretch(entry.at_ms, entry.at_ms))
        stretch.last_ms = entry.at_ms
        stretch.entries += 1
        stretch.items += len(entry.items)
