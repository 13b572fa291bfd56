"""The small examples do what they say, each on a real worker."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from celery_daemons import AddressBook
from tests.conftest import NewProject, NewServer, NewWorker
from tests.support.processes import alive
from tests.support.projects import ROOT
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: Seconds for a worker to start and its daemons to run, on a loaded machine.
RUNS_WITHIN = 60.0


@pytest.fixture
def server(new_server: NewServer) -> Server:
    """A server of the examples' own: they use the keys and databases that they name."""
    return new_server()


@pytest.fixture
def run_example(server: Server, new_project: NewProject, new_worker: NewWorker) -> Callable[..., Any]:
    """Start a worker of an example; returns it with its broker's URL."""

    def run(example: str, **env: str) -> Any:
        project = new_project(f"from examples.{example} import app\n", broker_url=server.url)
        quick = {"CELERY_CONFIG_MODULE": "examples.log_shipper.demo.settings", "CELERY_BROKER_URL": server.url}
        return new_worker(project, env={**quick, **env})

    return run


def running(server: Server, namespace: str, count: int) -> list[Any]:
    """Wait until so many daemons of a namespace run on the node, and return their addresses."""
    with AddressBook.connect(server.url, namespace) as book:

        def found() -> list[Any] | None:
            here = [address for address in book.process_list("w1@test") if address.status == "running"]
            return here if len(here) >= count else None

        return wait_until(found, within=RUNS_WITHIN, because="the example's scanner lists them")  # type: ignore[return-value]


def test_each_exchange_has_a_connection_that_keeps_its_price(run_example: Callable[..., Any], server: Server) -> None:
    run_example("websocket_per_exchange")

    running(server, "tickers", 3)

    with server.client() as client:
        first = wait_until(lambda: client.hgetall("prices"), within=10, because="feeds deliver ten prices a second")
        wait_until(lambda: len(now := client.hgetall("prices")) == 3 and now != first, within=10, because="prices move")


@pytest.mark.heavy
def test_each_tenant_of_a_table_of_several_pages_is_polled(
    run_example: Callable[..., Any], server: Server, tmp_path: Path
) -> None:
    table = tmp_path / "tenants.sqlite3"
    environment = {**os.environ, "TENANTS_DB": str(table)}
    subprocess.run(
        [sys.executable, "-m", "examples.poller_per_tenant", "1200"], cwd=ROOT, env=environment, check=True, timeout=60
    )

    run_example("poller_per_tenant", TENANTS_DB=str(table))

    running(server, "pollers", 1200)
    with server.client() as client:
        wait_until(lambda: client.hlen("polls") == 1200, within=20, because="every tenant is polled at once")
    with sqlite3.connect(table) as database:
        assert database.execute("select count(*) from tenants").fetchone() == (1200,)


def test_the_scheduler_sends_a_task_every_second(run_example: Callable[..., Any], server: Server) -> None:
    run_example("singleton_scheduler")

    (address,) = running(server, "scheduler", 1)

    with server.client() as client:
        ticks = wait_until(
            lambda: (found := client.lrange("ticks", 0, -1))[2:] and found,
            within=20,
            because="a tick comes every second",
        )
    numbers = [int(tick.split()[0]) for tick in ticks]
    assert len(set(numbers)) == len(numbers), "no tick came twice"
    assert ticks[-1].endswith(f"under token {address.token}")


@pytest.mark.heavy
def test_a_task_is_sent_to_the_node_of_a_daemon(run_example: Callable[..., Any], server: Server) -> None:
    worker = run_example("route_to_daemon", CELERY_RESULT_BACKEND=server.url)
    running(server, "rooms", 3)

    environment = {**os.environ, "CELERY_BROKER_URL": server.url, "CELERY_RESULT_BACKEND": server.url}
    visits = subprocess.run(
        [sys.executable, "-m", "examples.route_to_daemon", "lobby", "attic", "lobby", "cellar"],
        cwd=ROOT,
        env=environment,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )

    assert visits.stdout.splitlines() == [
        f"visit 1 to the lobby, which is on {worker.node}",
        f"visit 1 to the attic, which is on {worker.node}",
        f"visit 2 to the lobby, which is on {worker.node}",
        "the cellar is on no node at the moment",
    ]


@pytest.mark.heavy
def test_the_isolated_example_has_its_own_process_and_stops_when_asked(
    run_example: Callable[..., Any], server: Server
) -> None:
    worker = run_example("isolated_cpu")
    (address,) = running(server, "primes", 1)
    with server.client() as client:
        wait_until(lambda: client.hgetall("primes"), within=20, because="the search saves how far it is")

        status = worker.stop()

        left_off = client.hgetall("primes")
    assert status == 0
    assert not psutil.pid_exists(address.pid) or not alive(psutil.Process(address.pid))
    assert "daemon search] stopped at " + left_off["next"] in worker.output
    assert "did not stop" not in worker.output
