"""What integration tests share: a client of the test's cluster, and quick leases."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from celery_daemons.domain.records import Address
from celery_daemons.domain.states import DaemonStatus
from tests.support.clients import TestClient
from tests.support.projects import Project
from tests.support.waiting import wait_until

#: Leases that let a test wait for the end of one.
QUICK: dict[str, Any] = {"lease_ttl": 1.5, "heartbeat_interval": 0.3}
#: Seconds in which anything here happens, on a build machine that does other things as well.
SOON = 20.0


class Client(TestClient):
    """A cluster's client with the waits that tests need."""

    def running(self, *names: str) -> dict[str, Address] | None:
        """The addresses of daemons if all of them run."""
        found = self.locate_many(names)
        every = len(found) == len(names) and all(one.status is DaemonStatus.RUNNING for one in found.values())
        return found if every else None

    def wait_running_all(self, names: list[str], *, because: str, within: float = SOON) -> dict[str, Address]:
        """Wait until all run."""
        return wait_until(lambda: self.running(*names), within=within, because=because)

    def wait_up(self, *nodes: str, within: float = SOON) -> None:
        """Wait until these nodes, and no others, are up."""
        wait_until(
            lambda: {node.name for node in self.nodes() if node.status == "up"} == set(nodes),
            within=within,
            because=f"the nodes {nodes} are up",
        )

    def moved(self, names: list[str], *, off: str) -> bool:
        """Whether all run, and none on ``off``."""
        found = self.running(*names)
        return found is not None and all(address.node != off for address in found.values())

    def restarted(self, before: dict[str, Address]) -> bool:
        """Whether all run under newer tokens."""
        found = self.running(*before)
        return found is not None and all(found[name].token > old.token for name, old in before.items())

    def journal_events(self) -> list[str]:
        """The events in the journal, oldest first."""
        return [entry.event for entry in self.events(last=1000)]


@pytest.fixture
def client_of() -> Iterator[Callable[[Project], Client]]:
    """Make clients of a project's cluster."""
    clients: list[Client] = []

    def make(project: Project) -> Client:
        client = Client.connect(project.broker_url, project.namespace, vnodes=40)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()
