"""Fixtures of the integration tests: a cluster per module, clients with waits, and short leases."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from celery_daemons import Daemons
from celery_daemons.domain.records import Address
from celery_daemons.domain.states import DaemonStatus
from tests.conftest import RUNNING, NewProject
from tests.support.apps import app_at
from tests.support.clients import TestClient
from tests.support.clusters import BRISK, IntegrationCluster
from tests.support.django_projects import CELERY, CONTRIB, NewDjango, add_django, create_tables
from tests.support.postgresql import PostgreSQL
from tests.support.projects import Project
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.waiting import wait_until

#: Leases short enough for a test to wait until one ends.
QUICK: dict[str, Any] = {"lease_ttl": 1.5, "heartbeat_interval": 0.3}
#: Seconds within which everything here happens, even on a busy build machine.
SOON = 20.0


class Client(TestClient):
    """A client with the waits that tests need."""

    def running(self, *names: str) -> dict[str, Address] | None:
        """Return the addresses of these daemons, or None unless all of them run."""
        found = self.locate_many(names)
        every = len(found) == len(names) and all(one.status is DaemonStatus.RUNNING for one in found.values())
        return found if every else None

    def wait_running_all(self, names: list[str], *, because: str, within: float = SOON) -> dict[str, Address]:
        """Wait until all these daemons run, and return their addresses."""
        return wait_until(lambda: self.running(*names), within=within, because=because)

    def wait_up(self, *nodes: str, within: float = SOON) -> None:
        """Wait until these nodes, and no others, are up."""
        wait_until(
            lambda: {node.name for node in self.nodes() if node.status == "up"} == set(nodes),
            within=within,
            because=f"the nodes {nodes} are up",
        )

    def moved(self, names: list[str], *, off: str) -> bool:
        """Return whether all these daemons run, and none of them on node ``off``."""
        found = self.running(*names)
        return found is not None and all(address.node != off for address in found.values())

    def restarted(self, before: dict[str, Address]) -> bool:
        """Return whether all these daemons run under newer tokens than before."""
        found = self.running(*before)
        return found is not None and all(found[name].token > old.token for name, old in before.items())

    def journal_events(self) -> list[str]:
        """Return the events in the journal, oldest first."""
        return [entry.event for entry in self.events(last=1000)]


def module_cluster(
    source: str,
    *,
    workers: Mapping[str, Mapping[str, Any]] | None = None,
    settings: Mapping[str, Any] | None = None,
    pool: str = "solo",
) -> Any:
    """Return a module-scoped fixture that starts a cluster of these workers, by default one named ``w1``.

    Assign the fixture to ``shared_cluster`` in a test module, and let its tests use ``cluster``.
    """

    @pytest.fixture(scope="module")
    def shared_cluster(valkey: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IntegrationCluster]:
        folder = tmp_path_factory.mktemp("cluster")
        with IntegrationCluster(folder, valkey, source, settings=settings, pool=pool) as cluster:
            for name, options in (workers or {"w1": {}}).items():
                cluster.worker(name, **options)
            yield cluster

    return shared_cluster


@pytest.fixture
def cluster(shared_cluster: IntegrationCluster, request: pytest.FixtureRequest) -> Iterator[IntegrationCluster]:
    """Return the cluster of the module, and forget its daemons after the test."""
    request.node.stash[RUNNING] = list(shared_cluster.workers.values())
    yield shared_cluster
    shared_cluster.forget_all()


@pytest.fixture
def proxy(valkey: Server) -> Iterator[Proxy]:
    """Return a proxy in front of the shared server."""
    with Proxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def client_of() -> Iterator[Callable[[Project], Client]]:
    """Make clients of the cluster of a project."""
    clients: list[Client] = []

    def make(project: Project) -> Client:
        client = Client.connect(project.broker_url, project.namespace, vnodes=40)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """Return one PostgreSQL for all tests, which may restart it."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def django_project(valkey: Server, new_project: NewProject, postgresql: PostgreSQL) -> Iterator[NewDjango]:
    """Write Django projects on PostgreSQL for one test."""

    def make(
        daemons: str,
        *,
        installed: tuple[str, ...] = (CONTRIB,),
        more: dict[str, str] | None = None,
        **options: Any,
    ) -> Project:
        project = new_project(CELERY, settings={**BRISK, "redis_url": valkey.url})
        database = postgresql.settings(**options)
        add_django(project, daemons, database=database, installed=installed, more=more)
        create_tables(project)
        return project

    yield make
    postgresql.execute("drop table if exists shop_shop, django_migrations")


@pytest.fixture(scope="module")
def quiet_server() -> Iterator[Server]:
    """A server that only one module uses, so that its connections can be counted."""
    with Server() as server:
        yield server


@pytest.fixture
def daemons(quiet_server: Server, namespace: str) -> Daemons:
    """Return an app without workers, whose Redis is the quiet server."""
    return app_at(quiet_server.url, namespace)
