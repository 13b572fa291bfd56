"""The cluster of the fault tests: nodes that run daemons of every kind, each with a proxy of its own to Redis."""

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import psutil
from celery import Celery

from celery_daemons import Address
from celery_daemons.domain.records import Leader
from celery_daemons.store.keys import LAYOUT, Keys
from tests.fault.daemon_kinds import SOURCE, VNODES, chosen_by_ring, names_for
from tests.fault.signals import SOON
from tests.integration.conftest import Client
from tests.support.fake_clock import FakeClock
from tests.support.projects import Project
from tests.support.proxy import Proxy
from tests.support.recorder import Recorder
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import Worker

#: Short leases, so that a test can wait for the end of one; nothing moves but by the fault.
SHORT: dict[str, Any] = {
    "lease_ttl": 1.5,
    "heartbeat_interval": 0.3,
    "reconcile_interval": 1.0,
    "rebalance": "off",
    "drain_timeout": 10.0,
}
#: The journal events that carry tokens.
TOKENS = ("assign", "claim", "report", "recall", "release", "reassert", "sweep")
#: Where a worker's broker is: on the server of the address book and reached as that is, on the same but reached
#: directly, or on another server.
Broker = Literal["behind", "beside", "apart"]


class FaultCluster:
    """Some nodes, their daemons and a recorder, and a client whose connection to Redis no fault of a node affects."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: Iterable[str] = ("w1", "w2"),
        settings: Mapping[str, Any] | None = None,
        source: str = SOURCE,
        broker: Broker = "beside",
        wanted: Iterable[str] | None = None,
        options: Mapping[str, list[str]] | None = None,
        fake_clock: bool = False,
    ) -> None:
        self._resources = ExitStack()
        self._options = options or {}
        self._broker = broker
        self.clock = FakeClock(folder)
        self.server = self._resources.enter_context(Server("valkey", env=self.clock.env if fake_clock else None))
        self.proxies = {f"{name}@test": self._new_proxy() for name in nodes}
        self.client_proxy = self._new_proxy()
        self.wanted = sorted(wanted) if wanted is not None else names_for(self.proxies)
        queues = self._resources.enter_context(Server("valkey")).url if broker == "apart" else self.server.url
        self.project = Project(
            folder,
            source,
            broker_url=queues,
            namespace=f"fault-{uuid.uuid4().hex[:12]}",
            settings={**SHORT, **(settings or {})},
        )
        self.recorder = Recorder(self.project.folder)
        self.client = Client.connect(self.client_proxy.url, self.project.namespace, vnodes=VNODES)
        self._resources.callback(self.client.close)
        self.workers = {node: self.worker(node) for node in self.proxies}
        self.before: dict[str, Address] = {}
        #: Whether the last test on this cluster passed; if not, the state of the cluster is unknown.
        self.reusable = True

    def open(self) -> "FaultCluster":
        """Start everything."""
        self.list_daemons(self.wanted)
        # An old cluster: in a new one, the monitor waits for one lease before it acts.
        with self.server.client() as redis:
            redis.hset(Keys(self.project.namespace).cluster, mapping={"layout": LAYOUT, "created_ms": "1"})
        for worker in self.workers.values():
            worker.start()
        return self

    def close(self) -> None:
        """End all processes and servers."""
        for worker in self.workers.values():
            worker.close()
        self._resources.close()

    def begin(self) -> "FaultCluster":
        """Bring the cluster to the initial state of a test: healed, running, and placed as the ring prefers."""
        for proxy in (*self.proxies.values(), self.client_proxy):
            proxy.heal()
        for worker in self.workers.values():
            if not worker.running:
                worker.start()
        # A node may still be up although its worker has just died.
        wait_until(
            lambda: {worker.pid for worker in self.workers.values()} <= {node.pid for node in self.client.nodes()},
            within=SOON,
            because="every worker becomes a node",
        )
        self.wait_all_running()
        if not self._options and any(self.holds(node) != self.prefers(node) for node in self.proxies):
            # A restart places each daemon on the node that the ring prefers.
            before = self.client.locate_many(self.wanted)
            for name in self.wanted:
                self.client.restart(name)
            wait_until(lambda: self.client.restarted(before), within=SOON, because="all were asked to restart")
        self.before = self.wait_all_running()
        self.reusable = False
        return self

    # Queries

    def wait_all_running(self) -> dict[str, Address]:
        """Wait until every node is up, a monitor leads and every wanted daemon runs."""
        self.client.wait_up(*self.proxies, within=SOON)
        wait_until(self.client.leader, within=SOON, because="a monitor is elected")
        return self.client.wait_running_all(self.wanted, because="it is wanted", within=SOON)

    def final_check(self) -> dict[str, Address]:
        """Check the end of a fault test: every wanted daemon runs, once, and tokens only grew."""
        leases = {node: self.lease_end(node) for node in self.proxies}
        self.wait_all_running()
        for node, end in leases.items():
            wait_until(lambda n=node, e=end: self.lease_end(n) > e, within=SOON, because=f"{node} renews its lease")
        began = time.monotonic()
        now = wait_until(lambda: self._run_since(began), within=SOON, because="running daemons record themselves")
        self.recorder.check()
        runs = self.recorder.runs()
        for name, address in now.items():
            assert address.token >= max(run.token for run in runs[name]), f"the token of {name} fell: {address}"
        self._check_journal()
        self.reusable = True
        return now

    def _check_journal(self) -> None:
        """Check that no entry has an older epoch or token than an entry before it."""
        last: dict[str, int] = {}
        for entry in self.client.events(last=2000):
            marks = [("the epoch", entry.epoch)] if entry.epoch else []
            if entry.event in TOKENS:
                marks += [(name, int(token)) for name, token, _ in entry.items]
            for name, number in marks:
                assert number >= last.get(name, 0), f"{name} fell from {last[name]} to {number} in {entry}"
                last[name] = number

    def lease_end(self, node: str) -> float:
        """Return when the lease of a node ends, in milliseconds of the clock of Redis; 0 without a lease."""
        with self.server.client() as redis:
            return float(redis.zscore(Keys(self.project.namespace).leases, node) or 0)

    def assert_not_restarted(self, names: Iterable[str]) -> None:
        """Assert that these daemons kept their tokens."""
        now = self.client.locate_many(names)
        for name in names:
            assert now[name].token == self.before[name].token, f"{name} was restarted, and nothing had happened to it"

    def names_on(self, node: str) -> list[str]:
        """Return the daemons that ran on a node when the test began."""
        return [name for name, address in self.before.items() if address.node == node]

    def names_not_on(self, node: str) -> list[str]:
        """Return the daemons that ran on other nodes when the test began."""
        return [name for name, address in self.before.items() if address.node != node]

    def holds(self, node: str) -> set[str]:
        """Return the daemons that run on a node now."""
        return {name for name, address in self.client.locate_many(self.wanted).items() if address.node == node}

    def prefers(self, node: str) -> set[str]:
        """Return the daemons for which the ring prefers a node."""
        return {name for name in self.wanted if chosen_by_ring(name, self.proxies) == node}

    def wait_leader(self) -> tuple[str, Leader]:
        """Wait for a leader; return its node and its record."""
        leader = wait_until(self.client.leader, within=SOON, because="a monitor is elected")
        return str(leader.node), leader

    def other_node(self, node: str) -> str:
        """Return a node other than this one."""
        return next(name for name in self.proxies if name != node)

    def wait_moved(self, node: str) -> None:
        """Wait until the daemons that ran on a node run on other nodes."""
        names = self.names_on(node)
        wait_until(lambda: self.client.moved(names, off=node), within=SOON, because=f"{node} is left")

    def wait_event(self, event: str, *, since: str = "0-0", times: int = 1) -> None:
        """Wait until the journal has ``times`` entries of an event after the entry ``since``."""
        wait_until(lambda: len(self.events(event, since)) >= times, within=SOON, because=f"{event} is journalled")

    def events(self, event: str, since: str = "0-0") -> list[Any]:
        """Return the journal entries of an event after the entry ``since``."""
        after = _position(since)
        return [one for one in self.client.events(last=2000) if one.event == event and _position(one.id) > after]

    def journal_end(self) -> str:
        """Return the id of the newest journal entry."""
        last = self.client.events(last=1)
        return last[-1].id if last else "0-0"

    # Processes

    def agent(self, node: str) -> psutil.Process:
        """Return the agent of a node."""
        (found,) = self.agents(node)
        return found

    def agents(self, node: str) -> list[psutil.Process]:
        """Return the agent of a node in a list, empty without an agent."""
        return [one for one in self.workers[node].tree() if _command(one)[1:3] == ["-m", "celery_daemons.node"]]

    def hosts(self, node: str) -> list[psutil.Process]:
        """Return the hosts of a node."""
        return self._titled(node, "celery_daemons.host")

    def monitor(self, node: str) -> psutil.Process:
        """Return the monitor process of a node."""
        (found,) = self._titled(node, "celery_daemons.monitor")
        return found

    def _titled(self, node: str, title: str) -> list[psutil.Process]:
        return [one for one in self.workers[node].tree() if any(part.startswith(title) for part in _command(one))]

    # Actions

    def run_task(self, queue: str) -> None:
        """Send an ordinary task and wait until a worker has carried it out."""
        word = f"{queue} at {time.monotonic()}"
        with Celery(broker=self.project.broker_url) as app:
            app.send_task("proj.note", args=[word], queue=queue)
        notes = self.project.folder / "notes"
        wait_until(lambda: notes.exists() and word in notes.read_text(), within=SOON, because=f"{queue} is consumed")

    def list_daemons(self, names: Iterable[str]) -> None:
        """Set the names that the recovery scanners yield from now on."""
        path = self.project.folder / "listed.json"
        path.with_suffix(".new").write_text(json.dumps(sorted(names)))
        path.with_suffix(".new").replace(path)

    def flag(self, name: str, *, up: bool = True) -> None:
        """Set or clear a flag that the code of the project checks."""
        path = self.project.folder / name
        if up:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def move_all_from(self, node: str) -> None:
        """Move all daemons off a node, and then let the node take daemons again."""
        self.client.drain(node, wait=SOON)
        self.wait_moved(node)
        self.client.uncordon(node)

    def retarget(self, server: Server) -> None:
        """Connect every proxy to another server."""
        self.server = server
        for proxy in (*self.proxies.values(), self.client_proxy):
            proxy.retarget(server.port)

    def _new_proxy(self) -> Proxy:
        return self._resources.enter_context(Proxy(self.server.port))

    def worker(self, node: str, *more: str) -> Worker:
        """Make a worker with the name of a node and further options; the caller closes the worker."""
        proxy = self.proxies[node].url
        env = {"BOOK_URL": proxy, "QUEUE_URL": proxy if self._broker == "behind" else self.project.broker_url}
        name = node.partition("@")[0]
        options = ["--without-mingle", "--without-gossip", *self._options.get(name, ()), *more]
        return Worker(self.project, name, concurrency=1, options=options, env=env)

    def _run_since(self, began: float) -> dict[str, Address] | None:
        """Return all addresses if each daemon has recorded itself since ``began``, under its current token."""
        now = self.client.running(*self.wanted)
        runs = self.recorder.runs()
        if now is None or any(runs[name][-1].last <= began for name in now):
            return None
        return now if all(runs[name][-1].token == address.token for name, address in now.items()) else None


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _position(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)
