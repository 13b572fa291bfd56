"""Probes, metrics and the health file of real workers, without faults."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from celery_daemons.node.series import SERIES
from tests.conftest import RUNNING
from tests.support.clusters import COROUTINE_AND_FUNCTION, SOON, IntegrationCluster
from tests.support.probes import Probe, probe
from tests.support.servers import Server, free_port
from tests.support.waiting import wait_until

PORT = free_port()


@pytest.fixture(scope="module")
def shared_cluster(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IntegrationCluster]:
    folder = tmp_path_factory.mktemp("probes")
    settings = {"http": f"127.0.0.1:{PORT}", "health_file": str(folder / "%n.healthy")}
    with IntegrationCluster(folder, valkey, COROUTINE_AND_FUNCTION, settings=settings, pool="prefork") as cluster:
        cluster.worker("w1")
        cluster.spawn("one", "coroutine")
        cluster.spawn("two", "function")
        yield cluster


@pytest.fixture
def cluster(shared_cluster: IntegrationCluster, request: pytest.FixtureRequest) -> IntegrationCluster:
    request.node.stash[RUNNING] = list(shared_cluster.workers.values())
    return shared_cluster


@pytest.mark.parametrize("path", ["/livez", "/livez/worker", "/readyz", "/startupz"])
def test_every_probe_of_a_healthy_node_succeeds(cluster: IntegrationCluster, path: str) -> None:
    assert probe(PORT, path) == Probe(200, "ok\n")


def test_an_unknown_path_is_answered_by_the_known_ones(cluster: IntegrationCluster) -> None:
    found = probe(PORT, "/health")

    assert found.status == 404
    assert found.text.split() == ["/livez", "/livez/worker", "/readyz", "/startupz", "/metrics"]


def test_the_health_file_is_found_by_the_documented_command(cluster: IntegrationCluster) -> None:
    path = cluster.project.folder / "w1.healthy"
    command = f'test -n "$(find {path} -mmin -0.25)"'

    wait_until(
        lambda: subprocess.run(["sh", "-c", command], check=False).returncode == 0,
        within=SOON,
        because="the agent touches the file each second",
    )


def test_the_page_of_metrics_has_every_series_with_its_labels(cluster: IntegrationCluster) -> None:
    # Given a page with numbers of the cluster
    text = wait_until(
        lambda: (
            (page := probe(PORT, "/metrics").text)
            and 'status{launcher="function",status="running"} 1.0' in page
            and page
        ),
        within=SOON,
        because="the monitor reports its numbers",
    )

    # Then each series has the name, type and labels of the table
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for series in SERIES.values():
        family = families[series.full_name.removesuffix("_total")]
        assert family.type == series.kind, series.name
        assert family.documentation == series.help
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(series.labels), sample
    # And no series is on the page that is not in the table
    assert len(families) == len(SERIES)


def test_the_numbers_on_the_page_are_those_of_the_node(cluster: IntegrationCluster) -> None:
    values = samples(probe(PORT, "/metrics").text)

    assert values["celery_daemons_running", ("coroutine",)] == 1
    assert values["celery_daemons_running", ("function",)] == 1
    assert values["celery_daemons_leader", ()] == 1
    assert values["celery_daemons_elections_total", ()] == 1
    assert values["celery_daemons_nodes", ("up",)] == 1
    assert values["celery_daemons_host_resident_bytes", ("shared-1",)] > 1e6
    assert values["celery_daemons_host_resident_bytes", ("isolated",)] > 1e6
    assert 0 < values["celery_daemons_lease_margin_seconds", ()] < values["celery_daemons_lease_seconds", ()]
    assert values["celery_daemons_worker_tick_age_seconds", ()] < 12


def test_a_crash_is_counted_as_a_restart(cluster: IntegrationCluster) -> None:
    before = cluster.spawn("three", "function")

    psutil.Process(before.pid).kill()
    cluster.wait_restarted(before)

    values = samples(probe(PORT, "/metrics").text)
    assert values["celery_daemons_restarts_total", ("function", "failed")] == 1
    cluster.daemons.forget("three")


def test_a_node_that_an_operator_drains_is_not_ready_but_alive(cluster: IntegrationCluster) -> None:
    worker = cluster.workers["w1"]

    cluster.daemons.drain(worker.node)
    wait_until(lambda: probe(PORT, "/readyz").status == 503, within=SOON, because="the next heartbeat says so")

    assert f"`celery -A proj:app daemons uncordon {worker.node}` ends that" in probe(PORT, "/readyz").text
    assert probe(PORT, "/livez").status == 200
    assert probe(PORT, "/startupz").status == 200
    cluster.daemons.uncordon(worker.node)
    wait_until(lambda: probe(PORT, "/readyz").status == 200, within=SOON, because="the next heartbeat says so")


def test_a_node_whose_port_is_taken_runs_daemons_and_says_why_it_cannot_be_probed(
    cluster: IntegrationCluster,
) -> None:
    """Attacks: the package could stop the worker's own tasks."""
    # Given a second worker with the settings of the first
    worker = cluster.worker("w2", pool="solo")

    # Then the worker is a node, and status and log report the problem
    status = wait_until(
        lambda: (found := cluster.daemons.status()).warnings and found, within=SOON, because="a heartbeat writes it"
    )
    assert set(status.warnings) == {worker.node}
    assert f"cannot listen on 127.0.0.1:{PORT}" in status.warnings[worker.node]
    assert worker.output.count("cannot listen") == 1
    assert "Address already in use" in worker.output
    assert "warning" in cluster.project.celery("daemons", "status").stdout


@pytest.mark.heavy
def test_a_worker_with_the_solo_pool_says_that_its_timer_shows_nothing(
    valkey: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    port = free_port()
    settings = {"http": f"[::1]:{port}"}
    with IntegrationCluster(tmp_path, valkey, COROUTINE_AND_FUNCTION, settings=settings, pool="solo") as cluster:
        request.node.stash[RUNNING] = [cluster.worker("w1")]

        found = probe(port, "/livez/worker", host="[::1]")

        assert found.status == 404
        assert "not available: the solo pool" in found.text
        assert probe(port, "/livez", host="[::1]").status == 200


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return the values on a page by name and by the values of the labels."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
