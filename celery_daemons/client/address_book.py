"""A live replica of the address book in this process, for look-ups without a round trip."""

import asyncio
import logging
import os
import threading
import time
import weakref
from types import TracebackType
from typing import Final

from celery_daemons.client.address_table import AddressTable
from celery_daemons.client.change_signal import ChangeSignal
from celery_daemons.client.lookups import preferred_node
from celery_daemons.domain.names import check_name, daemon_name
from celery_daemons.domain.records import Address, Node
from celery_daemons.domain.states import DaemonStatus
from celery_daemons.errors import DaemonsError, SpawnTimeout, StoreUnavailable
from celery_daemons.settings import DEFAULT_NAMESPACE, DEFAULT_VNODES
from celery_daemons.store import queries
from celery_daemons.store.clock import lease_clock
from celery_daemons.store.connection import Store
from celery_daemons.store.keys import Keys
from celery_daemons.store.replica import Changes, Replica

logger = logging.getLogger(__name__)

#: The most seconds that one read of the journal blocks.
_JOURNAL_WAIT: Final = 0.5
#: The most seconds between two reads of the leases; if a lease ends soon, a third of the time that is left of it.
_LEASE_READ_INTERVAL: Final = 1.0
#: The least seconds between two reads of the leases.
_SHORTEST_READ_INTERVAL: Final = 0.1
#: Seconds before the next attempt while Redis does not answer.
_RETRY_PAUSE: Final = 0.2
#: Seconds without an answer of Redis after which an error names that as the reason.
_SILENT: Final = 2.0


class AddressBook:
    """A replica that follows the journal in a thread while the ``with`` block runs; look-ups read a dictionary.

    ``async with`` opens and closes the replica in threads. Look-ups do not block an event loop.

    Look-ups return an address only while the lease of its node is valid as far as this process knows. Leases are read
    about every second; a lease whose renewal was not seen ends at the end that was last read. If Redis has not answered
    for :attr:`lag` seconds, a returned address may be that long out of date; once every known lease has ended, look-ups
    return no address.

    If the address leads to another Redis server than before, the replica is loaded again from that server. A process
    that is forked inside the ``with`` block follows by itself: its first look-up reads the address book again, in a
    thread of that process, and raises :exc:`~celery_daemons.StoreUnavailable` if Redis does not answer.

    Look-ups outside of the ``with`` block raise :exc:`~celery_daemons.DaemonsError`.
    """

    def __init__(self, store: Store, *, vnodes: int) -> None:
        self._store = store
        self._vnodes = vnodes
        self._replica = Replica(store, with_specs=False)
        self._table = AddressTable()
        self._changed = ChangeSignal()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_read_at = 0.0
        #: The server that the monitor had confirmed when everything was read, and the history of the one that answered.
        self._server = ("", "")
        #: The book was open in the parent process from which this process was forked.
        self._forked = False
        self._opening = threading.Lock()

    @classmethod
    def connect(cls, url: str, namespace: str = DEFAULT_NAMESPACE, *, vnodes: int = DEFAULT_VNODES) -> "AddressBook":
        """Return a replica without a Celery app, to be used as a context manager.

        ``vnodes`` must be the cluster's ``daemons_vnodes`` for :meth:`pick_node` to be right. Raises
        :exc:`~celery_daemons.InvalidName` for the namespace and :exc:`~celery_daemons.ConfigurationError` for the URL.
        """
        return cls(Store(url, Keys(check_name(namespace, "namespace")), pin_server=True), vnodes=vnodes)

    def __enter__(self) -> "AddressBook":
        self._stop.clear()
        self._open()
        _open_books.add(self)
        return self

    def _open(self) -> None:
        """Read everything and start to follow. Raises DaemonsError if no thread can be started."""
        try:
            self._load()
        except StoreUnavailable:
            # The next attempt may use another server: what is known of the previous server no longer counts.
            self._store.pin.accept_new_server()
            raise
        thread = threading.Thread(target=self._follow, name="celery-daemons-address-book", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # What was read must not be used: nothing would keep it current.
            self._table = AddressTable()
            raise DaemonsError(
                f"this address book cannot be followed ({error}): raise the limit of threads of this process"
            ) from error
        self._thread = thread

    def note_fork(self) -> None:
        """Forget everything: the thread that follows the journal exists only in the parent process.

        Called in every forked process. Locks may have been held by threads that do not exist here.
        """
        self._store = Store(self._store.url, self._store.keys, pin_server=True)
        self._replica = Replica(self._store, with_specs=False)
        self._table = AddressTable()
        self._changed, self._stop, self._opening = ChangeSignal(), threading.Event(), threading.Lock()
        self._thread, self._forked = None, True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        _open_books.discard(self)
        self._stop.set()
        self._forked = False
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._table = AddressTable()
        self._store.close()

    async def __aenter__(self) -> "AddressBook":
        opening = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread continues, and what it opens has to be closed.
            abandoned = asyncio.ensure_future(self._close_after(opening))
            _closing.add(abandoned)
            abandoned.add_done_callback(_closing.discard)
            raise

    async def _close_after(self, opening: "asyncio.Future[AddressBook]") -> None:
        await asyncio.wait([opening])
        if opening.exception() is None:
            await asyncio.to_thread(self._close)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(asyncio.to_thread(self._close))

    @property
    def lag(self) -> float:
        """Seconds since Redis last answered."""
        return time.monotonic() - self._last_read_at

    def locate(self, name: str) -> Address | None:
        """Return a daemon's address, or ``None`` unless the lease of the node is valid."""
        # Same as AddressTable.locate(), without another function call.
        table = self._table
        address = table.addresses.get(name)
        if address is not None and table.ends.get(address.node, 0.0) > lease_clock():
            return address
        if self._thread is not None:
            return None
        self._check_open()
        return self._table.locate(name)

    def process_list(self, node: str) -> list[Address]:
        """Return the addresses of the daemons on a node, sorted by name."""
        self._check_open()
        return self._table.on_node(node)

    def nodes(self) -> list[Node]:
        """Return every registered node, sorted by name."""
        self._check_open()
        return sorted(
            (
                queries.node(name, row, int(self._table.lease(name) * 1000), daemons=self._table.count(name))
                for name, row in self._replica.nodes.items()
            ),
            key=lambda node: node.name,
        )

    def pick_node(self, name: str) -> str | None:
        """Return the node that the hash ring prefers for a name, or ``None`` while no node takes daemons."""
        self._check_open()
        live = {node: row for node, row in self._replica.nodes.items() if self._table.lease(node) > 0}
        return preferred_node(daemon_name(name), live, self._vnodes)

    def wait_for(self, name: str, timeout: float) -> Address:
        """Wait up to ``timeout`` seconds until a daemon runs, and return the address.

        Raises :exc:`~celery_daemons.SpawnTimeout`.
        """

        self._check_open()
        found = self._changed.wait_for(lambda: self._running(name), timeout)
        if found is None:
            raise self._not_running(name, timeout)
        return found

    async def wait_for_async(self, name: str, timeout: float) -> Address:  # noqa: ASYNC109 - the same as of wait_for
        """Wait as :meth:`wait_for` does, without blocking the event loop."""
        self._check_open()
        found = await self._changed.wait_for_async(lambda: self._running(name), timeout)
        if found is None:
            raise self._not_running(name, timeout)
        return found

    def _running(self, name: str) -> Address | None:
        address = self.locate(name)
        return address if address is not None and address.status is DaemonStatus.RUNNING else None

    def _not_running(self, name: str, timeout: float) -> SpawnTimeout:
        address = self.locate(name)
        state = f"it is {address.status} on {address.node}" if address else "it is on no node"
        if self.lag > _SILENT:
            state = f"it is not known where it is, as Redis has not answered for {self.lag:.0f} s"
        return SpawnTimeout(f"daemon {name} does not run after {timeout} s: {state}")

    def _check_open(self) -> None:
        # A closed replica is empty, and "no address" would be a wrong answer.
        if self._thread is not None:
            return
        if not self._forked:
            raise DaemonsError("this address book is not open: use it inside `with … as book:`")
        with self._opening:
            if self._thread is None:
                self._open()

    def _follow(self) -> None:
        read_leases_at = 0.0
        needs_reload = False
        while not self._stop.is_set():
            try:
                if needs_reload:
                    self._load()
                    needs_reload = False
                wait = min(_JOURNAL_WAIT, max(0.001, read_leases_at - time.monotonic()))
                changes = self._replica.follow(block_ms=int(wait * 1000))
                if changes.nodes or time.monotonic() >= read_leases_at:
                    needs_reload = self._read_leases()
                    read_leases_at = time.monotonic() + self._lease_read_interval()
                self._last_read_at = time.monotonic()
                self._apply(changes)
            except StoreUnavailable as error:
                logger.warning("address book: %s; trying again", error)
                # Another server may lack the last writes and never report the daemons that these writes were about.
                self._store.pin.accept_new_server()
                needs_reload = True
                self._stop.wait(_RETRY_PAUSE)
            except Exception:
                logger.exception("address book: cannot be followed, reading it again")
                needs_reload = True
                self._stop.wait(_RETRY_PAUSE)

    def _load(self) -> None:
        self._replica.load()
        self._read_leases(loading=True)
        self._last_read_at = time.monotonic()
        self._apply(Changes(everything=True))

    def _read_leases(self, *, loading: bool = False) -> bool:
        """Read the ends of all leases, and return whether Redis holds other data than the replica was loaded from."""
        asked_at = lease_clock()
        overview = self._store.run(queries.overview(self._store.keys))
        # Counted from before the query: an end that is too early hides a valid address, one that is too late would
        # return an invalid one.
        self._table.ends = {node: asked_at + left / 1000 for node, left in overview.leases.items()}
        if loading:
            self._server = overview.server, overview.history
        # A server that became a replica meanwhile keeps its connections and has the data of another one.
        return overview.created_ms != self._replica.created_ms or (overview.server, overview.history) != self._server

    def _lease_read_interval(self) -> float:
        now = lease_clock()
        shortest = min((end - now for end in self._table.ends.values() if end > now), default=_LEASE_READ_INTERVAL)
        return max(_SHORTEST_READ_INTERVAL, min(_LEASE_READ_INTERVAL, shortest / 3))

    def _apply(self, changes: Changes) -> None:
        self._table.apply(self._replica, changes)
        if changes.names or changes.everything:
            self._changed.notify()


#: Books that are closed because their ``async with`` was cancelled while it opened them.
_closing: set["asyncio.Future[None]"] = set()
#: The books that are open in this process.
_open_books: "weakref.WeakSet[AddressBook]" = weakref.WeakSet()


def _after_fork() -> None:
    for book in list(_open_books):
        book.note_fork()


os.register_at_fork(after_in_child=_after_fork)
