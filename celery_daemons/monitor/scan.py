"""Run the user's recovery scanners: each in a thread, with a time limit, a page of specs at a time."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from typing import Final

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName, daemon_name
from celery_daemons.domain.planner import Snapshot
from celery_daemons.domain.records import DaemonSpec, SpecRow
from celery_daemons.errors import DaemonsError, LeaseLost
from celery_daemons.launcher import Launcher, Registry
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.monitor.scanner_items import items_of, scan_thread
from celery_daemons.settings import Settings
from celery_daemons.store import specs
from celery_daemons.store.connection import Store
from celery_daemons.store.script import BATCH
from celery_daemons.wire.arguments import encode_arguments

logger = logging.getLogger(__name__)

#: The most problems of one scan that are reported.
_MAX_PROBLEMS: Final = 3
#: The most bytes of arguments in one call to Redis.
_PAGE_BYTES: Final = 8 * 1024 * 1024

_Row = tuple[DaemonName, LauncherName, str]


class _TimedOut(Exception):
    """The scan was abandoned; further specs of the scanner do not count."""


class Scan:
    """A single run of a recovery scanner."""

    def __init__(
        self, launcher: Launcher[...], *, registry: Registry, known: Mapping[DaemonName, SpecRow], began_at: float
    ) -> None:
        self.launcher = launcher
        self.began_at = began_at
        #: Set when the scan is abandoned.
        self.abandoned = threading.Event()
        #: The listed daemons, each with a hash of its launcher and arguments.
        self.listed: dict[DaemonName, int] = {}
        self._problems: list[str] = []
        self._problem_count = 0
        self.complete = False
        self._registry = registry
        self._known = known

    def run(self, record: Callable[[list[_Row]], None]) -> None:
        """Read everything that the scanner lists, and pass new and changed specs to ``record`` in pages.

        What was listed before the scanner raises an exception is recorded too.
        """
        assert self.launcher.scanner is not None
        with closing(items_of(self.launcher.scanner)) as items:
            self._record_all(items, record)

    def _record_all(self, items: Iterator[object], record: Callable[[list[_Row]], None]) -> None:
        page: list[_Row] = []
        size = 0
        while True:
            try:
                spec = next(items)
            except StopIteration:
                break
            except BaseException:
                if page and not self.abandoned.is_set():
                    record(page)
                raise
            if self.abandoned.is_set():
                raise _TimedOut
            row = self._changed_row(spec)
            if row is None:
                continue
            if page and (len(page) >= BATCH or size + len(row[2]) > _PAGE_BYTES):
                record(page)
                page, size = [], 0
            page.append(row)
            size += len(row[2])
        if page:
            record(page)
        self.complete = True

    def _changed_row(self, spec: object) -> _Row | None:
        """Return the row of a spec; ``None`` if Redis has the same spec already, or if the spec is invalid."""
        row = self._row(spec)
        if row is None:
            return None
        call = hash(row[1:])
        if self.listed.setdefault(row[0], call) != call:
            # Recording both would replace the daemon twice with every scan.
            self.add_problem(f"lists {row[0]} twice, with different arguments; the first one counts")
            return None
        known = self._known.get(row[0])
        same = known is not None and known.launcher == row[1] and known.arguments == row[2]
        return None if same else row

    @property
    def problems(self) -> list[str]:
        """The first problems, and how many more there are."""
        more = self._problem_count - len(self._problems)
        return [*self._problems, f"and {more} more"] if more else self._problems

    def add_problem(self, problem: str) -> None:
        """Note a problem that does not end the scan."""
        if problem in self._problems:
            return
        self._problem_count += 1
        if len(self._problems) < _MAX_PROBLEMS:
            self._problems.append(problem)

    def _row(self, spec: object) -> _Row | None:
        if not isinstance(spec, DaemonSpec):
            self.add_problem(f"yielded {spec!r:.80}, which is not a spec; use launcher.spec(name, …)")
            return None
        if spec.problem is not None:
            self.add_problem(spec.problem)
            return None
        if spec.launcher not in self._registry:
            self.add_problem(f"yielded {spec.name} for launcher {spec.launcher!r}, which is not registered")
            return None
        try:
            # Checked here too: a scanner may make a DaemonSpec itself.
            name = daemon_name(spec.name)
            args, kwargs = self._registry[spec.launcher].bound(name, spec.args, spec.kwargs)
            return name, spec.launcher, encode_arguments(name, args, kwargs)
        except DaemonsError as error:
            self.add_problem(str(error))
            return None


class Scans:
    """Starts the scans that are due, a single scan per launcher at a time, and reports the result of each scan."""

    def __init__(
        self,
        *,
        registry: Registry,
        settings: Settings,
        store: Store,
        epoch: Epoch,
        snapshot: Snapshot,
        tally: ClusterTally,
        clock: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._store = store
        self._epoch = epoch
        self._snapshot = snapshot
        self._tally = tally
        self._clock = clock
        self._due_at = {name: 0.0 for name in registry if registry[name].scanner is not None}
        self._running: dict[str, Scan] = {}
        self._threads: dict[str, threading.Thread] = {}
        #: The threads of abandoned scans.
        self._stuck: dict[str, threading.Thread] = {}
        #: By launcher: the daemons that its last complete scan did not list.
        self._missing: dict[str, set[DaemonName]] = {}

    @property
    def next_due_at(self) -> float:
        """Return when a scan has to be started or abandoned next, on the clock."""
        running = self._running.copy()
        limits = [scan.began_at + self._settings.scan_timeout for scan in running.values()]
        # A scan that is requested while one runs starts when that one ends. If it counted as due, the loop would spin.
        due = [at for name, at in self._due_at.items() if name not in running]
        return min([*due, *limits], default=float("inf"))

    def request(self, launcher: str | None) -> None:
        """Make the scan of a launcher due now; ``None`` stands for all launchers."""
        for name in self._due_at:
            if launcher in (None, name):
                self._due_at[name] = 0.0

    def run_due(self) -> None:
        """Start the scans that are due, and abandon scans that exceed ``daemons_scan_timeout``."""
        now = self._clock()
        for name, scan in list(self._running.items()):
            if now - scan.began_at > self._settings.scan_timeout:
                self._abandon(name, scan)
        for name, due_at in self._due_at.items():
            if due_at <= now and name not in self._running:
                self._due_at[name] = now + self._settings.scan_interval
                self._start(name)

    def _abandon(self, name: str, scan: Scan) -> None:
        if self._running.pop(name, None) is None:
            return  # The scan ended just now, and its thread reports it.
        scan.abandoned.set()
        self._stuck[name] = self._threads[name]
        limit = self._settings.scan_timeout
        self._report(scan, f"did not finish within {limit} s; yield pages, or raise daemons_scan_timeout")

    def _start(self, name: str) -> None:
        stuck = self._stuck.get(name)
        if stuck is not None and stuck.is_alive():
            # A second thread would block in the same place.
            logger.error("launcher %s: recovery scanner still blocked in an earlier scan, skipping this scan", name)
            return
        self._stuck.pop(name, None)
        scan = Scan(self._registry[name], registry=self._registry, known=self._snapshot.specs, began_at=self._clock())
        self._running[name] = scan
        thread = threading.Thread(target=self._run, args=(name, scan), name=f"scan-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # The scan is tried again when it is next due. Meanwhile the monitor places what is known.
            del self._running[name]
            self._report(scan, f"cannot be started: {error}; raise the limit of threads of the monitor's node")
        else:
            self._threads[name] = thread

    def _run(self, name: str, scan: Scan) -> None:
        error: str | None = None
        try:
            with scan_thread(scan.launcher):
                scan.run(lambda page: self._record(scan, page))
        except (_TimedOut, LeaseLost):
            return
        except BaseException as raised:
            if scan.abandoned.is_set():
                return
            logger.exception("launcher %s: recovery scanner failed", name)
            error = f"{type(raised).__name__}: {raised}"
        if self._running.pop(name, None) is None:
            return  # The loop abandoned the scan, and has reported that.
        try:
            if scan.complete and not scan.problems:
                self._prune(name, scan)
            problems = [*scan.problems, error] if error else scan.problems
            self._report(scan, "; ".join(problems) or None)
        except DaemonsError as failed:
            logger.warning("launcher %s: scan not reported (%s)", name, failed)

    def _record(self, scan: Scan, page: list[_Row]) -> None:
        outcomes = self._store.run(
            specs.record(self._store.keys, page, mode="scan", actor="scanner", epoch=self._epoch)
        )
        for (name, launcher, _), outcome in zip(page, outcomes, strict=True):
            if outcome == "conflict":
                scan.add_problem(f"lists {name} for launcher {launcher}, but the name is taken by another launcher")

    def _prune(self, name: str, scan: Scan) -> None:
        if not scan.launcher.options.prune:
            return
        known = self._snapshot.specs
        missing = {daemon for daemon, row in list(known.items()) if row.launcher == name} - scan.listed.keys()
        # Missing twice in a row: one incomplete answer of the user's database must not stop a daemon.
        gone = sorted(missing & self._missing.get(name, set()))
        self._missing[name] = missing
        for start in range(0, len(gone), BATCH):
            batch = gone[start : start + BATCH]
            self._store.run(specs.forget(self._store.keys, batch, cause="pruned", actor="scanner", epoch=self._epoch))

    def _report(self, scan: Scan, error: str | None) -> None:
        if error is not None:
            logger.error("launcher %s: recovery scanner: %s", scan.launcher.name, error)
        seconds, listed = self._clock() - scan.began_at, len(scan.listed)
        self._tally.scanned(scan.launcher.name, seconds=seconds, listed=listed, failed=error is not None)
        self._store.run(
            specs.scanned(
                self._store.keys,
                self._epoch,
                scan.launcher.name,
                listed=listed,
                took_ms=int(seconds * 1000),
                error=error,
            )
        )
