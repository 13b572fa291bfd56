"""An in-memory copy of the address book that follows the journal, for the monitor and for clients."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from celery_daemons.domain.names import DaemonName, NodeName
from celery_daemons.domain.records import BookRow, JournalEntry, NodeRow, SpecRow
from celery_daemons.store import journal, queries
from celery_daemons.store.codec import decode_or_none
from celery_daemons.store.connection import Store
from celery_daemons.store.script import BATCH, text

logger = logging.getLogger(__name__)

#: Journal entries per read. An entry can name 1,000 daemons, so this bounds how many records are refreshed at once.
_ENTRIES: Final = 20
#: Events that change only specs, and events that change only entries of the book. Any other event may change both.
_OF_SPECS: Final = frozenset(("want", "restart", "move"))
_OF_THE_BOOK: Final = frozenset(("assign", "recall", "park", "claim", "report", "sweep"))
#: Fields whose text many records share. Interning these saves a third of the memory of 100,000 records. A field that is
#: different in each record must not be here: interning takes memory, which some releases of Python never free.
_SHARED: Final = {SpecRow: ("launcher",), BookRow: ("launcher", "node", "incarnation", "why")}
#: Events whose items name launchers, not daemons.
_OF_SCANS: Final = frozenset(("scan-failed", "rescan"))
#: Events that change the set of nodes or a node's record.
_NODE_EVENTS: Final = frozenset(
    ("join", "leave", "drain", "uncordon", "lost", "reassert", "cannot-serve", "serves-again")
)


@dataclass(slots=True)
class Changes:
    """The changes of a read of the journal; ``everything`` means that the whole copy was reloaded."""

    names: set[DaemonName] = field(default_factory=set)
    nodes: bool = False
    everything: bool = False
    entries: list[JournalEntry] = field(default_factory=list)


class Replica:
    """Specs, book and nodes as of the last journal entry read. A single thread follows; any thread may read."""

    def __init__(self, store: Store, *, with_specs: bool, on_page: Callable[[], None] = lambda: None) -> None:
        """Create an empty copy; ``on_page`` is called after each page of :meth:`load`, which may take long."""
        self._store = store
        self._on_page = on_page
        self._with_specs = with_specs
        self.specs: dict[DaemonName, SpecRow] = {}
        self.book: dict[DaemonName, BookRow] = {}
        self.nodes: dict[NodeName, NodeRow] = {}
        #: Daemons with a corrupt record. Nothing changes such a record until an operator repairs or deletes it.
        self.corrupt: set[DaemonName] = set()
        self._unreadable: set[tuple[type[Any], DaemonName]] = set()
        self.position = "0-0"
        self.created_ms = ""

    def load(self) -> None:
        """Read everything, page by page; the next :meth:`follow` reads what changed meanwhile."""
        position = journal.last_id(self._store)
        keys = self._store.keys
        self.corrupt = set()
        self._unreadable = set()
        self.specs = self._pages(keys.specs, SpecRow) if self._with_specs else {}
        self.book = self._pages(keys.book, BookRow)
        self.load_nodes()
        self.created_ms = self._store.run(queries.overview(keys)).created_ms
        self.position = position

    @property
    def counts(self) -> tuple[int, int]:
        """Return how many specs and entries Redis must hold if this copy is complete."""
        unreadable = [kind for kind, _ in self._unreadable]
        return len(self.specs) + unreadable.count(SpecRow), len(self.book) + unreadable.count(BookRow)

    def load_nodes(self) -> None:
        """Reload the records of all nodes."""
        self.nodes = {name: row for name, (row, _) in queries.node_rows(self._store).items()}

    def follow(self, *, block_ms: int) -> Changes:
        """Wait up to ``block_ms`` milliseconds for changes, and apply the changes to the copy."""
        entries = journal.follow(self._store, self.position, block_ms=block_ms, count=_ENTRIES)
        if not entries:
            return Changes()
        oldest = journal.oldest_id(self._store)
        fell_behind = self.position != "0-0" and (
            oldest is None or journal.position(oldest) > journal.position(self.position)
        )
        if fell_behind:
            logger.info("replica: fell behind the journal, reloading the address book")
            self.load()
            return Changes(everything=True, nodes=True, entries=entries)
        changes = Changes(entries=entries)
        book, specs = set[DaemonName](), set[DaemonName]()
        for entry in entries:
            changes.nodes = changes.nodes or entry.event in _NODE_EVENTS
            if entry.event in _OF_SCANS:
                continue
            named = [DaemonName(sys.intern(item[0])) for item in entry.items]
            # A corrupt record is read again after any event of the daemon: an operator may have repaired the record.
            doubtful = self.corrupt.intersection(named)
            if entry.event in _OF_SPECS:
                # An entry that is marked as forgotten is marked otherwise once the daemon is wanted again.
                marked = (name for name in named if name in self.book and self.book[name].unwanted)
                book.update(doubtful, marked)
            else:
                book.update(named)
            specs.update(doubtful if entry.event in _OF_THE_BOOK else named)
        changes.names = book | specs
        self._refresh(self._store.keys.book, self.book, BookRow, book)
        if self._with_specs:
            self._refresh(self._store.keys.specs, self.specs, SpecRow, specs)
        if changes.nodes:
            self.load_nodes()
        self.position = entries[-1].id
        return changes

    def _refresh(
        self, key: str, rows: dict[DaemonName, Any], kind: type[BookRow] | type[SpecRow], names: set[DaemonName]
    ) -> None:
        """Read some records again, with a round trip per 1,000."""
        remaining = iter(names)
        while chunk := list(islice(remaining, BATCH)):
            for name, raw in zip(chunk, queries.raw(self._store, key, chunk), strict=True):
                self._take(rows, name, kind, raw)

    def _take(self, rows: dict[DaemonName, Any], name: DaemonName, kind: type[Any], raw: bytes | None) -> None:
        row = decode_or_none(kind, raw)
        if row is not None:
            _share(row)
            rows[name] = row
        else:
            rows.pop(name, None)
        readable = raw is None or row is not None
        if not readable:
            logger.error(
                "daemon %s: its record in %s is corrupt and will not be changed; make sure that the daemon does not "
                "run, then delete the record with HDEL",
                name,
                self._store.keys.specs if kind is SpecRow else self._store.keys.book,
            )
            self._unreadable.add((kind, name))
            self.corrupt.add(name)
        elif (kind, name) in self._unreadable:
            self._unreadable.remove((kind, name))
            self.corrupt = {name for _, name in self._unreadable}

    def _pages(self, key: str, kind: type[Any]) -> dict[DaemonName, Any]:
        rows: dict[DaemonName, Any] = {}
        cursor = 0
        while True:

            def query(client: Any, at: int = cursor) -> Any:
                return client.hscan(key, at, count=BATCH)

            cursor, page = self._store.read(query)
            for name, raw in page.items():
                self._take(rows, DaemonName(text(name)), kind, raw)
            self._on_page()
            if cursor == 0:
                return rows


def _share(row: BookRow | SpecRow) -> None:
    """Intern the texts of a new record that other records share. Call before any other code has the record."""
    for name in _SHARED[type(row)]:
        value = getattr(row, name)
        if value:
            object.__setattr__(row, name, sys.intern(value))
