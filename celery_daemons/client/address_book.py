"""A live replica of the address book in this process, for look-ups that cost no round trip."""

import logging
import threading
import time
from types import TracebackType
from typing import Final

from celery_daemons.client.lookups import preferred
from celery_daemons.domain.names import DaemonName, NodeName, check_name, daemon_name
from celery_daemons.domain.records import Address, Node, NodeRow
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.errors import DaemonsError, SpawnTimeout, StoreUnavailable
from celery_daemons.settings import DEFAULTS
from celery_daemons.store import queries
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.replica import Changes, Replica

logger = logging.getLogger(__name__)

#: Seconds that the follower waits for the journal at most; and between two readings of the leases.
_WAIT: Final = 0.5
_LEASES_EVERY: Final = 1.0
#: A shorter lease is read when a third of what is left of it has passed, but no more often than this.
_LEASES_AT_MOST_EVERY: Final = 0.1
_RETRY: Final = 0.2


class AddressBook:
    """Follows the journal in a thread between ``with`` and its end; look-ups read a dictionary.

    An address is given only while its node's lease runs as far as this process knows: leases are read every second,
    and one that was not seen renewed counts as ended at the end last seen. After :attr:`lag` seconds without a word,
    what is given may have moved; once every known lease has ended, nothing is given any more.
    """

    def __init__(self, store: Store, *, vnodes: int) -> None:
        self._store = store
        self._vnodes = vnodes
        self._replica = Replica(store, with_specs=False)
        self._addresses: dict[str, Address] = {}
        self._by_node: dict[str, set[str]] = {}
        self._ends: dict[str, float] = {}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._heard = 0.0

    @classmethod
    def connect(
        cls, url: str, namespace: str = DEFAULTS["namespace"], *, vnodes: int = DEFAULTS["vnodes"]
    ) -> "AddressBook":
        """A replica without a Celery app; use it as a context manager."""
        return cls(Store(url, Keys(check_name(namespace, "namespace"))), vnodes=vnodes)

    def __enter__(self) -> "AddressBook":
        self._stop.clear()
        self._load()
        self._thread = threading.Thread(target=self._follow, name="celery-daemons-address-book", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._addresses, self._by_node, self._ends = {}, {}, {}
        self._store.close()

    @property
    def lag(self) -> float:
        """Seconds since Redis was last heard."""
        return time.monotonic() - self._heard

    def locate(self, name: str) -> Address | None:
        """Where a daemon is; ``None`` unless the lease of its node runs. Raises DaemonsError outside of ``with``."""
        address = self._addresses.get(name)
        if address is None:
            self._check_open()
            return None
        if self._ends.get(address.node, 0.0) <= lease_clock():
            return None
        return address

    def process_list(self, node: str) -> list[Address]:
        """The daemons on one node by name."""
        self._check_open()
        return sorted(
            (found for name in list(self._by_node.get(node, ())) if (found := self.locate(name))),
            key=lambda address: address.name,
        )

    def nodes(self) -> list[Node]:
        """The nodes by name."""
        self._check_open()
        now = lease_clock()
        return sorted(
            (
                queries.node(
                    name, row, int((self._ends.get(name, 0.0) - now) * 1000), daemons=len(self._by_node.get(name, ()))
                )
                for name, row in self._replica.nodes.items()
            ),
            key=lambda node: node.name,
        )

    def pick_node(self, name: str) -> str | None:
        """The node that the ring prefers for a name, running or not."""
        self._check_open()
        now = lease_clock()
        live = {node: row for node, row in self._replica.nodes.items() if self._ends.get(node, 0.0) > now}
        return preferred(daemon_name(name), live, self._vnodes)

    def wait_for(self, name: str, timeout: float) -> Address:
        """Wait until a daemon runs; raises SpawnTimeout."""

        def running() -> Address | None:
            address = self.locate(name)
            return address if address is not None and address.status is DaemonStatus.RUNNING else None

        with self._changed:
            found = self._changed.wait_for(running, timeout)
        if found is None:
            address = self.locate(name)
            state = f"is {address.status} on {address.node}" if address else "is on no node"
            raise SpawnTimeout(f"daemon {name} does not run after {timeout} s: it {state}")
        return found

    def _check_open(self) -> None:
        # What is not followed knows nothing, and "nowhere" would be a wrong answer.
        if self._thread is None:
            raise DaemonsError("this address book is not open: look things up inside `with … as book:`")

    def _follow(self) -> None:
        leases_at = 0.0
        stale = False
        while not self._stop.is_set():
            try:
                if stale:
                    self._load()
                    stale = False
                wait = min(_WAIT, max(0.001, leases_at - time.monotonic()))
                changes = self._replica.follow(block_ms=int(wait * 1000))
                if changes.nodes or time.monotonic() >= leases_at:
                    stale = self._read_leases()
                    leases_at = time.monotonic() + self._until_next_reading()
                self._heard = time.monotonic()
                self._take(changes)
            except StoreUnavailable as error:
                logger.warning("address book: %s", error)
                stale = True
                self._stop.wait(_RETRY)

    def _load(self) -> None:
        self._replica.load()
        self._read_leases()
        self._heard = time.monotonic()
        self._take(Changes(everything=True))

    def _read_leases(self) -> bool:
        """Read the ends of all leases; true when the data is not that of the copy."""
        asked = lease_clock()
        overview = self._store.run(queries.overview(self._store.keys))
        # From the moment of asking: an end that is too early is an answer not given, one too late would be a wrong one.
        self._ends = {node: asked + left / 1000 for node, left in overview.leases.items()}
        return overview.created_ms != self._replica.created_ms

    def _until_next_reading(self) -> float:
        now = lease_clock()
        shortest = min((end - now for end in self._ends.values() if end > now), default=_LEASES_EVERY)
        return max(_LEASES_AT_MOST_EVERY, min(_LEASES_EVERY, shortest / 3))

    def _take(self, changes: Changes) -> None:
        replica = self._replica
        if changes.everything or changes.nodes:
            addresses, by_node = {}, dict[str, set[str]]()
            for name, row in replica.book.items():
                address = queries.address(name, row, replica.nodes.get(row.node) if row.node else None)
                if address is not None:
                    addresses[str(name)] = address
                    by_node.setdefault(address.node, set()).add(name)
            self._addresses, self._by_node = addresses, by_node
        else:
            for name in changes.names:
                self._take_one(name)
        if changes.names or changes.everything:
            with self._changed:
                self._changed.notify_all()

    def _take_one(self, name: DaemonName) -> None:
        before = self._addresses.get(name)
        if before is not None:
            self._by_node.get(before.node, set()).discard(name)
        row = self._replica.book.get(name)
        node: NodeRow | None = self._replica.nodes.get(NodeName(row.node)) if row and row.node else None
        address = queries.address(name, row, node)
        if address is None:
            self._addresses.pop(name, None)
        else:
            self._addresses[name] = address
            self._by_node.setdefault(address.node, set()).add(name)
