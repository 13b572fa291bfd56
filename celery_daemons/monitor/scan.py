"""Running the user's recovery scanners: each in a thread, time-boxed, a page at a time."""

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName
from celery_daemons.domain.records import DaemonSpec, SpecRow
from celery_daemons.errors import DaemonsError, LeaseLost
from celery_daemons.launcher import Launcher, Registry, encode_arguments
from celery_daemons.settings import Settings
from celery_daemons.store import specs
from celery_daemons.store.connection import Store
from celery_daemons.store.script import BATCH

logger = logging.getLogger(__name__)

#: The most of what went wrong in one scan that is reported.
_COMPLAINTS: Final = 3


class _GaveUp(Exception):
    """The scan has run out of time; what it still yields counts no more."""


class Scan:
    """One run of one scanner."""

    def __init__(self, launcher: Launcher, registry: Registry, known: dict[DaemonName, SpecRow]) -> None:
        self.launcher = launcher
        self.began = time.monotonic()
        self.over = threading.Event()
        #: What was listed, by name, with a digest of the call.
        self.listed: dict[DaemonName, int] = {}
        self.complaints: list[str] = []
        self.complete = False
        self._registry = registry
        self._known = known

    def run(self, record: Callable[[list[tuple[DaemonName, LauncherName, str]]], None]) -> None:
        """Read the scanner to its end and record what it lists and is not known yet."""
        page: list[tuple[DaemonName, LauncherName, str]] = []
        for spec in self._specs():
            if self.over.is_set():
                raise _GaveUp
            row = self._row(spec)
            if row is None:
                continue
            call = hash(row[1:])
            if self.listed.setdefault(row[0], call) != call:
                # Each would replace the other, at every scan anew.
                self.complain(f"it lists {row[0]} twice, with different arguments; the first one counts")
                continue
            known = self._known.get(row[0])
            if known is None or known.launcher != row[1] or known.arguments != row[2]:
                page.append(row)
            if len(page) >= BATCH:
                record(page)
                page = []
        if page:
            record(page)
        self.complete = True

    def complain(self, complaint: str) -> None:
        """Note something wrong that does not end the scan."""
        if len(self.complaints) < _COMPLAINTS and complaint not in self.complaints:
            self.complaints.append(complaint)

    def _specs(self) -> Iterator[object]:
        assert self.launcher.scanner is not None
        found = self.launcher.scanner()
        if inspect.iscoroutine(found):
            found = asyncio.run(_awaited(found))
        if inspect.isasyncgen(found) or hasattr(found, "__aiter__"):
            found = _drained(found)
        if isinstance(found, (str, bytes)) or not isinstance(found, Iterable):
            raise TypeError(f"it returned {found!r:.80}; a recovery scanner returns or yields specs")
        for item in found:
            if isinstance(item, (list, tuple, set)):
                yield from item
            else:
                yield item

    def _row(self, spec: object) -> tuple[DaemonName, LauncherName, str] | None:
        if not isinstance(spec, DaemonSpec):
            self.complain(f"it yielded {spec!r:.80}, which is no spec: use launcher.spec(name, …)")
            return None
        if spec.launcher not in self._registry:
            self.complain(f"it yielded {spec.name} for launcher {spec.launcher!r}, which is not registered")
            return None
        try:
            return spec.name, spec.launcher, encode_arguments(spec.name, spec.args, spec.kwargs)
        except DaemonsError as error:
            self.complain(str(error))
            return None


async def _awaited(found: Any) -> Any:
    return await found


def _drained(found: AsyncIterator[object]) -> Iterator[object]:
    """The items of an async generator, on a loop of this thread."""
    loop = asyncio.new_event_loop()
    iterator = found.__aiter__()
    try:
        while True:
            try:
                yield loop.run_until_complete(anext(iterator))
            except StopAsyncIteration:
                return
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class Scans:
    """Starts scans when they are due, never two of one launcher, and reports how each went."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        store: Store,
        epoch: Epoch,
        specs: Callable[[], dict[DaemonName, SpecRow]],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._store = store
        self._epoch = epoch
        self._specs = specs
        self._due = {name: 0.0 for name in registry if registry[name].scanner is not None}
        self._running: dict[str, Scan] = {}
        self._stuck: dict[str, threading.Thread] = {}
        self._missing: dict[str, set[DaemonName]] = {}
        self._threads: dict[str, threading.Thread] = {}

    @property
    def next_due(self) -> float:
        """When something here is due next, in monotonic seconds."""
        running = self._running.copy()
        limits = [scan.began + self._settings.scan_timeout for scan in running.values()]
        # One that is asked for while it runs is due once that run is over: no reason to look again and again.
        dues = [due for name, due in self._due.items() if name not in running]
        return min([*dues, *limits], default=float("inf"))

    def request(self, launcher: str | None) -> None:
        """Scan now: one launcher, or all."""
        for name in self._due:
            if launcher in (None, name):
                self._due[name] = 0.0

    def attend(self) -> None:
        """Start what is due, give up what took too long."""
        now = time.monotonic()
        for name, scan in list(self._running.items()):
            if now - scan.began > self._settings.scan_timeout:
                self._give_up(name, scan)
        for name, due in self._due.items():
            if due <= now and name not in self._running:
                self._due[name] = now + self._settings.scan_interval
                self._start(name)

    def _give_up(self, name: str, scan: Scan) -> None:
        scan.over.set()
        del self._running[name]
        self._stuck[name] = self._threads[name]
        limit = self._settings.scan_timeout
        self._tell(scan, f"did not finish within {limit} s; make it yield pages, or raise daemons_scan_timeout")

    def _start(self, name: str) -> None:
        stuck = self._stuck.get(name)
        if stuck is not None and stuck.is_alive():
            # A second thread would block where the first does.
            logger.error("launcher %s: its recovery scanner is still blocked since an earlier scan", name)
            return
        self._stuck.pop(name, None)
        scan = Scan(self._registry[name], self._registry, self._specs())
        self._running[name] = scan
        thread = threading.Thread(target=self._run, args=(name, scan), name=f"scan-{name}", daemon=True)
        self._threads[name] = thread
        thread.start()

    def _run(self, name: str, scan: Scan) -> None:
        error: str | None = None
        try:
            scan.run(lambda page: self._record(scan, page))
        except (_GaveUp, LeaseLost):
            return
        except BaseException as raised:
            if scan.over.is_set():
                return
            logger.exception("launcher %s: its recovery scanner failed", name)
            error = f"{type(raised).__name__}: {raised}"
        if scan.over.is_set():
            return
        self._running.pop(name, None)
        try:
            if scan.complete and not scan.complaints:
                self._prune(name, scan)
            said = [*scan.complaints, error] if error else scan.complaints
            self._tell(scan, "; ".join(said) or None)
        except DaemonsError as failed:
            logger.warning("launcher %s: scan not reported (%s)", name, failed)

    def _record(self, scan: Scan, page: list[tuple[DaemonName, LauncherName, str]]) -> None:
        outcomes = self._store.run(specs.record(self._store.keys, page, mode="scan", epoch=self._epoch))
        for (name, launcher, _), outcome in zip(page, outcomes, strict=True):
            if outcome == "conflict":
                scan.complain(f"it lists {name} for launcher {launcher}, but the name is taken by another launcher")

    def _prune(self, name: str, scan: Scan) -> None:
        if not scan.launcher.options.prune:
            return
        known = self._specs()
        missing = {daemon for daemon, row in list(known.items()) if row.launcher == name} - scan.listed.keys()
        gone = sorted(missing & self._missing.get(name, set()))
        self._missing[name] = missing
        for start in range(0, len(gone), BATCH):
            batch = gone[start : start + BATCH]
            self._store.run(specs.forget(self._store.keys, batch, cause="pruned", epoch=self._epoch))

    def _tell(self, scan: Scan, error: str | None) -> None:
        if error is not None:
            logger.error("launcher %s: recovery scanner: %s", scan.launcher.name, error)
        took_ms = int((time.monotonic() - scan.began) * 1000)
        self._store.run(
            specs.scanned(
                self._store.keys,
                self._epoch,
                scan.launcher.name,
                listed=len(scan.listed),
                took_ms=took_ms,
                error=error,
            )
        )
