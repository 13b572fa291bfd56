"""Numbers are counted correctly, and the number of series is bounded."""

import random
import sys
from importlib.metadata import Distribution, PackageNotFoundError

import pytest

import celery_daemons
from celery_daemons.domain.census import Census
from celery_daemons.domain.histogram import Histogram
from celery_daemons.domain.names import DaemonName, LauncherName, NodeName, Token
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.forkserver.spawner import ProcessEnd
from celery_daemons.node.measurements import Measurements
from celery_daemons.node.metrics import Metrics, ServedNode
from celery_daemons.node.series import SERIES
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.node.supervision.supervisor import Supervisor
from celery_daemons.node.vitals import Vitals
from celery_daemons.store.keys import LAYOUT
from celery_daemons.wire.messages import MOVE_REASONS, PLACEMENT_BOUNDS, ClusterNumbers, ClusterTotals, ScanNumbers

TAIL = LauncherName("tail")
X = DaemonName("x")
#: What the reference promises for a node that does not lead.
MOST_SERIES = 200


def spec(desired: Desired = Desired.RUNNING) -> SpecRow:
    return SpecRow(launcher=TAIL, arguments="", desired=desired, version="1")


def row(status: DaemonStatus, node: str | None = "n1") -> BookRow:
    return BookRow(status=status, token=Token(1), launcher=TAIL, node=NodeName(node) if node else None)


def numbers(**changes: object) -> ClusterNumbers:
    empty = {
        "statuses": [],
        "desired": {},
        "nodes": {},
        "node_daemons": {},
        "lease_seconds": {},
        "unhealthy": [],
        "rebalance_paused": False,
        "totals": ClusterTotals(),
        "placement": {},
        "reconcile_seconds": 0.0,
        "reconciled_at": 0.0,
        "scans": {},
    }
    return ClusterNumbers(**{**empty, **changes})  # type: ignore[arg-type]


class Hosts:
    """A pool of hosts without processes."""

    def __init__(self, count: int) -> None:
        self._count = count

    def pids(self) -> dict[HostId, int]:
        return {HostId(number): 10**9 + number for number in range(self._count)}


def metrics(
    *, launchers: int = 1, hosts: int = 1, of: Measurements | None = None, leads: bool = False
) -> tuple[Metrics, Measurements]:
    """Return the metrics of an agent with so many launchers and hosts."""
    of = of or Measurements()
    for number in range(hosts):
        of.host_opened(HostId(number), isolated=False)
        of.host_answered(HostId(number), 0.01)
    names = [LauncherName(f"l{number:03}") for number in range(launchers)]
    supervisor = Supervisor({name: LauncherOptions() for name in names}, shared_hosts=1, rng=random.Random(1))
    for name in names:
        supervisor.tally.restarted(name, "failed")
        supervisor.tally.stopped(name, 1.5)
        supervisor.tally.killed(name)
    node = ServedNode(lease_seconds=5.0, launchers=names, supervisor=supervisor, hosts=Hosts(hosts))  # type: ignore[arg-type]
    vitals = Vitals(no_ticks="", now=0.0)
    return Metrics(measurements=of, vitals=vitals, leads=lambda: leads, node=node), of


def lines(page: bytes) -> list[str]:
    return [line for line in page.decode().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(("launchers", "hosts"), [(1, 1), (13, 4), (14, 5), (100, 30)])
def test_a_node_has_a_bounded_number_of_series(launchers: int, hosts: int) -> None:
    found, of = metrics(launchers=launchers, hosts=hosts)
    of.renewed(3.5, now=0.0)

    assert len(lines(found.page("").body)) <= MOST_SERIES


def test_launchers_beyond_the_first_add_up() -> None:
    found, _ = metrics(launchers=100)

    samples = dict(found.samples(now=0.0)["stop_seconds"])

    assert len(samples) == 13
    assert samples["other",] == (88, 132.0)


def test_a_thousand_replaced_hosts_add_no_series() -> None:
    # Given a node with two hosts
    found, of = metrics(hosts=2)
    before = len(lines(found.page("").body))

    # When hosts are replaced a thousand times
    for number in range(2, 1000):
        of.host_died(HostId(number - 2), ProcessEnd("was killed by SIGALRM", by_lease_timer=True))
        of.host_opened(HostId(number), isolated=False)
        of.host_answered(HostId(number), 0.01)

    # Then the labels are those of the first two
    assert len(lines(found.page("").body)) <= before
    assert of.deadman_kills == 998
    assert set(of.loop_lag) == {"shared-1", "shared-2"}


def test_only_the_leader_serves_numbers_of_the_cluster() -> None:
    of = Measurements()
    of.monitor_reported(numbers(desired={TAIL: 2}, statuses=[(TAIL, DaemonStatus.RUNNING, 2)]))

    leading, _ = metrics(of=of, leads=True)
    other, _ = metrics(of=of, leads=False)

    assert 'celery_daemons_status{launcher="tail",status="running"} 2.0' in lines(leading.page("").body)
    assert 'celery_daemons_status{launcher="tail",status="failed"} 0.0' in lines(leading.page("").body)
    assert not any("celery_daemons_status" in line for line in lines(other.page("").body))


def test_what_happened_under_an_earlier_monitor_stays_counted() -> None:
    """A counter that vanished with the leader would hide the loss of the leader's own node."""
    of = Measurements()
    for _ in range(2):
        totals = ClusterTotals(moves={**dict.fromkeys(MOVE_REASONS, 0), "lost": 3}, nodes_lost=1, mass_failures=1)
        of.monitor_reported(numbers(totals=totals))
        of.monitor_reported(numbers(totals=totals))
        of.monitor_ended()

    assert of.totals.moves["lost"] == 6
    assert (of.totals.nodes_lost, of.totals.mass_failures) == (2, 2)
    assert of.cluster is None


def test_the_least_margin_is_that_of_the_last_minute() -> None:
    of = Measurements()
    for second, margin in ((0, 3.0), (10, 1.0), (20, 2.0), (69, 4.0)):
        of.renewed(margin, now=float(second))

    assert of.least_margin(70.0) == 1.0
    assert of.least_margin(71.0) == 2.0
    assert of.least_margin(200.0) is None


def test_every_family_of_a_leader_is_in_the_table_and_every_one_of_the_table_can_be_built() -> None:
    of = Measurements()
    of.renewed(1.0, now=0.0)
    of.monitor_reported(
        numbers(
            placement={"new": ([0] * (len(PLACEMENT_BOUNDS) + 1), 0.0)},
            scans={TAIL: ScanNumbers(seconds=1.0, listed=2, succeeded_at=3.0)},
            unhealthy=[(X, DaemonStatus.FAILED)],
        )
    )
    found, _ = metrics(of=of, leads=True)

    assert found.samples(now=0.0).keys() == SERIES.keys()
    assert found.page("application/openmetrics-text; version=1.0.0").body.endswith(b"# EOF\n")


def test_without_the_extra_the_page_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)

    found, _ = metrics()

    assert found.page("").status == 501
    assert b"celery-daemons[metrics]" in found.page("").body


def test_a_histogram_counts_an_observation_in_each_bucket_that_holds_it() -> None:
    found = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        found.observe(value)

    assert found.cumulative() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert found.total == 12.0


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ((spec(), row(DaemonStatus.RUNNING)), DaemonStatus.RUNNING),
        ((spec(), row(DaemonStatus.UNPLACEABLE, None)), DaemonStatus.UNPLACEABLE),
        ((spec(), row(DaemonStatus.RUNNING, None)), DaemonStatus.PENDING),
        ((spec(), None), DaemonStatus.PENDING),
        ((spec(Desired.STOPPED), None), DaemonStatus.STOPPED),
        ((spec(Desired.STOPPED), row(DaemonStatus.STOPPING)), DaemonStatus.STOPPING),
    ],
)
def test_the_census_counts_a_daemon_as_the_list_shows_it(
    records: tuple[SpecRow | None, BookRow | None], status: DaemonStatus
) -> None:
    census = Census()
    census.recount(X, *records)

    assert +census.statuses == {(TAIL, status): 1}


def test_the_census_agrees_with_a_count_from_scratch_after_any_changes() -> None:
    rng, census = random.Random(7), Census()
    books: dict[DaemonName, tuple[SpecRow | None, BookRow | None]] = {}
    for _ in range(3000):
        name = DaemonName(f"d{rng.randrange(40)}")
        records = (
            rng.choice([None, spec(), spec(Desired.STOPPED)]),
            rng.choice([None, row(rng.choice(list(DaemonStatus)), rng.choice([None, "n1", "n2"]))]),
        )
        books[name] = records
        census.recount(name, *records)
    fresh = Census()
    for name, records in books.items():
        fresh.recount(name, *records)

    assert +census.statuses == +fresh.statuses
    assert +census.desired == +fresh.desired
    assert +census.by_node == +fresh.by_node
    assert census.unhealthy == fresh.unhealthy


def test_the_version_is_on_the_page_of_a_copy_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    def missing(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(Distribution, "from_name", missing)

    # When
    metrics = Metrics(measurements=Measurements(), vitals=Vitals(no_ticks="", now=0.0), leads=lambda: False)

    # Then
    assert metrics.samples(now=0.0)["build_info"] == [((celery_daemons.__version__, LAYOUT), 1)]
