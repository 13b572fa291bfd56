"""The monitor counts moves by their reason, and measures how long a daemon was without a node."""

from typing import Any

import pytest

from celery_daemons.domain import reconcile
from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import BookRow, JournalEntry, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.monitor.cluster_tally import ClusterTally
from celery_daemons.store.replica import Changes
from celery_daemons.wire.messages import ClusterNumbers

TAIL, X = LauncherName("tail"), DaemonName("x")


class Copy:
    """The monitor's copy of the book, as a test writes it."""

    def __init__(self) -> None:
        self.specs: dict[DaemonName, SpecRow] = {}
        self.book: dict[DaemonName, BookRow] = {}
        self.corrupt: set[DaemonName] = set()
        self.nodes = {
            NodeName(name): NodeRow(
                incarnation=Incarnation("i"),
                status=NodeStatus.UP,
                queue="",
                spawn_queue="",
                host="",
                pid=1,
                weight=1.0,
                labels="",
                launchers="",
            )
            for name in ("n1", "n2")
        }


class TallyHarness:
    """A tally on a clock that the test sets, and what it reports."""

    def __init__(self, *, enabled: bool = True) -> None:
        self.now = 100.0
        self.copy = Copy()
        self.reports: list[ClusterNumbers] = []
        self.tally = ClusterTally(
            enabled=enabled, snapshot=self.copy, report=self.reports.append, clock=lambda: self.now
        )
        self.tally.snapshot_loaded()

    def want(self, desired: Desired = Desired.RUNNING) -> None:
        """Write the spec of the daemon, and let the tally see it."""
        self.copy.specs[X] = SpecRow(launcher=TAIL, arguments="", desired=desired, version="1")
        self.follow()

    def put(self, status: DaemonStatus, node: str | None, *, event: str = "report") -> None:
        """Write the entry of the daemon, and let the tally see it."""
        where = NodeName(node) if node else None
        self.copy.book[X] = BookRow(status=status, token=Token(1), launcher=TAIL, node=where)
        self.follow(event)

    def follow(self, event: str = "want") -> None:
        """Let the tally see a change of the daemon."""
        entry = JournalEntry(id="1-0", at_ms=0, event=event, node=None, epoch=None, cause=None, items=((X, "1", ""),))
        self.tally.followed(Changes(names={X}, entries=[entry]))

    @property
    def numbers(self) -> ClusterNumbers:
        """What the tally would report now."""
        return self.tally.numbers()

    def placed(self) -> dict[str, tuple[int, float]]:
        """Return number and seconds of the placements that have ended, by reason."""
        found = {reason: (sum(counts), total) for reason, (counts, total) in self.numbers.placement.items()}
        return {reason: value for reason, value in found.items() if value[0]}

    def moves(self) -> dict[str, int]:
        """Return the moves that were counted."""
        return {reason: count for reason, count in self.numbers.totals.moves.items() if count}


@pytest.fixture
def harness() -> TallyHarness:
    return TallyHarness()


@pytest.fixture
def running(harness: TallyHarness) -> TallyHarness:
    """A daemon that runs on the first node, and whose start took a second."""
    harness.want()
    harness.now += 1
    harness.put(DaemonStatus.ASSIGNED, "n1")
    harness.put(DaemonStatus.RUNNING, "n1")
    return harness


def test_a_new_daemon_is_placed_and_not_moved(running: TallyHarness) -> None:
    assert running.placed() == {"new": (1, 1.0)}
    assert running.moves() == {}


def test_a_daemon_of_a_lost_node_is_counted_as_lost(running: TallyHarness) -> None:
    running.put(DaemonStatus.PENDING, None, event="sweep")
    running.now += 2
    running.put(DaemonStatus.RUNNING, "n2")

    assert running.placed()["lost"] == (1, 2.0)
    assert running.moves() == {"lost": 1}


@pytest.mark.parametrize(
    ("why", "reason", "moved"),
    [
        ("to n2: n1 holds more", "rebalance", 1),
        (reconcile.MOVED, "moved", 1),
        (reconcile.FAILED_HERE, "moved", 1),
        (reconcile.LEFT, "left", 1),
        (reconcile.REPLACED, "replaced", 0),
    ],
)
def test_a_recalled_daemon_is_counted_by_the_cause_of_the_recall(
    running: TallyHarness, why: str, reason: str, moved: int
) -> None:
    running.tally.recalled(X, why)
    running.put(DaemonStatus.STOPPING, "n1")
    running.put(DaemonStatus.PENDING, None, event="release")
    running.now += 0.5
    running.put(DaemonStatus.ASSIGNED, "n2")
    running.put(DaemonStatus.RUNNING, "n2")

    assert running.placed()[reason] == (1, 0.5)
    assert sum(running.moves().values()) == moved


def test_a_release_without_a_recall_is_a_node_that_left(running: TallyHarness) -> None:
    running.put(DaemonStatus.PENDING, None, event="release")
    running.put(DaemonStatus.RUNNING, "n2")

    assert running.moves() == {"left": 1}


def test_a_move_that_is_seen_in_a_single_read_is_counted(running: TallyHarness) -> None:
    """The journal is read in batches: release and assignment may be in one."""
    running.put(DaemonStatus.ASSIGNED, "n2", event="sweep")

    assert running.moves() == {"lost": 1}


def test_a_daemon_that_is_stopped_is_neither_placed_nor_moved(running: TallyHarness) -> None:
    running.want(Desired.STOPPED)
    running.put(DaemonStatus.STOPPED, None, event="release")

    assert running.moves() == {}
    assert running.numbers.desired == {TAIL: 0}


def test_a_crash_on_the_same_node_is_no_move(running: TallyHarness) -> None:
    running.put(DaemonStatus.BACKOFF, "n1")
    running.put(DaemonStatus.RUNNING, "n1")

    assert running.moves() == {}
    assert running.placed() == {"new": (1, 1.0)}


def test_only_the_first_hundred_unhealthy_daemons_are_named(harness: TallyHarness) -> None:
    names = [DaemonName(f"d{number:04}") for number in range(250)]
    for name in names:
        harness.copy.specs[name] = SpecRow(launcher=TAIL, arguments="", desired=Desired.RUNNING, version="1")
        harness.copy.book[name] = BookRow(
            status=DaemonStatus.FAILED, token=Token(1), launcher=TAIL, node=NodeName("n1")
        )
    harness.tally.snapshot_loaded()

    assert harness.numbers.unhealthy == [(name, DaemonStatus.FAILED) for name in names[:100]]
    assert harness.numbers.node_daemons == {"n1": 250, "n2": 0}


def test_a_quiet_cluster_is_reported_every_five_seconds_and_a_busy_one_every_second(harness: TallyHarness) -> None:
    harness.reports.clear()
    for _ in range(20):
        harness.now += 1
        harness.tally.turn_ended(harness.now)
    quiet = len(harness.reports)
    for _ in range(20):
        harness.now += 0.5
        harness.want()
        harness.tally.turn_ended(harness.now)

    assert quiet in (4, 5)
    assert len(harness.reports) - quiet in (10, 11)


def test_without_daemons_http_nothing_is_counted() -> None:
    harness = TallyHarness(enabled=False)
    harness.want()
    harness.put(DaemonStatus.RUNNING, "n1")
    harness.now += 60
    harness.tally.turn_ended(harness.now)

    assert harness.reports == []
    assert harness.numbers.statuses == []


def test_a_failed_scan_keeps_the_time_of_the_last_success(harness: TallyHarness) -> None:
    harness.tally.scanned(TAIL, seconds=1.0, listed=5, failed=False)
    succeeded_at = harness.numbers.scans[TAIL].succeeded_at
    harness.tally.scanned(TAIL, seconds=2.0, listed=0, failed=True)

    found: Any = harness.numbers.scans[TAIL]
    assert (found.seconds, found.listed, found.succeeded_at) == (2.0, 0, succeeded_at)
    assert succeeded_at > 0
