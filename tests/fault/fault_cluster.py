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
#: The events of the journal that tell of tokens.
TOKENS = ("assign", "claim", "report", "recall", "release", "reassert", "sweep")
#: Where a worker's broker is: on the server of the address book and reached as that is, on the same but reached
#: directly, or on another server.
Broker = Literal["behind", "beside", "apart"]


class FaultCluster:
    """Some nodes, their daemons, a recorder of them, and a client that sees Redis whatever befalls the nodes."""

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
    ) -> None:
        self._resources = ExitStack()
        self._options = options or {}
        self._broker = broker
        self.server = self._resources.enter_context(Server("valkey"))
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
        self.client = Client(self.client_proxy.url, self.project.namespace, vnodes=VNODES)
        self._resources.callback(self.client.close)
        self.workers = {node: self.worker(node) for node in self.proxies}
        self.before: dict[str, Address] = {}
        #: Whether the last test that used it came to its end; if not, nothing here can be counted on.
        self.reusable = True

    def open(self) -> "FaultCluster":
        """Start everything."""
        self.list_daemons(self.wanted)
        # A cluster that has been there for a while: in a new one the monitor waits for a lease's time.
        with self.server.client() as redis:
            redis.hset(Keys(self.project.namespace).cluster, mapping={"layout": LAYOUT, "created_ms": "1"})
        for worker in self.workers.values():
            worker.start()
        return self

    def close(self) -> None:
        """Leave nothing behind."""
        for worker in self.workers.values():
            worker.close()
        self._resources.close()

    def begin(self) -> "FaultCluster":
        """Bring everything into the state in which a test expects it."""
        for proxy in (*self.proxies.values(), self.client_proxy):
            proxy.heal()
        for worker in self.workers.values():
            if not worker.running:
                worker.start()
        # A node may be up still whose worker has just died.
        wait_until(
            lambda: {worker.pid for worker in self.workers.values()} <= {node.pid for node in self.client.nodes()},
            within=SOON,
            because="every worker becomes a node",
        )
        self.wait_all_running()
        if not self._options and any(self.holds(node) != self.prefers(node) for node in self.proxies):
            # Placed anew, they go to where the ring wants them.
            before = self.client.locate_many(self.wanted)
            for name in self.wanted:
                self.client.restart(name)
            wait_until(lambda: self.client.restarted(before), within=SOON, because="all were told to restart")
        self.before = self.wait_all_running()
        self.reusable = False
        return self

    # Looking

    def wait_all_running(self) -> dict[str, Address]:
        """Wait until every node is up, somebody leads and everything wanted runs."""
        self.client.wait_up(*self.proxies, within=SOON)
        wait_until(self.client.leader, within=SOON, because="a monitor is elected")
        return self.client.wait_running_all(self.wanted, because="it is wanted", within=SOON)

    def final_check(self) -> dict[str, Address]:
        """What every fault test ends with: all that is wanted runs, once, and its tokens only grow."""
        leases = {node: self.lease_end(node) for node in self.proxies}
        self.wait_all_running()
        for node, end in leases.items():
            wait_until(lambda n=node, e=end: self.lease_end(n) > e, within=SOON, because=f"{node} is heard again")
        began = time.monotonic()
        now = wait_until(lambda: self._run_since(began), within=SOON, because="what is said to run does run")
        self.recorder.check()
        runs = self.recorder.runs()
        for name, address in now.items():
            assert address.token >= max(run.token for run in runs[name]), f"the token of {name} fell: {address}"
        self._check_journal()
        self.reusable = True
        return now

    def _check_journal(self) -> None:
        """Nobody acts under an epoch or a token after a newer one was seen."""
        last: dict[str, int] = {}
        for entry in self.client.events(last=2000):
            marks = [("the epoch", entry.epoch)] if entry.epoch else []
            if entry.event in TOKENS:
                marks += [(name, int(token)) for name, token, _ in entry.items]
            for name, number in marks:
                assert number >= last.get(name, 0), f"{name} fell from {last[name]} to {number} in {entry}"
                last[name] = number

    def lease_end(self, node: str) -> float:
        """When Redis takes a node's lease for over, in milliseconds by its clock; 0 for a node without one."""
        with self.server.client() as redis:
            return float(redis.zscore(Keys(self.project.namespace).leases, node) or 0)

    def assert_not_restarted(self, names: Iterable[str]) -> None:
        """Assert that these daemons kept their tokens."""
        now = self.client.locate_many(names)
        for name in names:
            assert now[name].token == self.before[name].token, f"{name} was restarted, and nothing had happened to it"

    def names_on(self, node: str) -> list[str]:
        """What ran on a node when the test began."""
        return [name for name, address in self.before.items() if address.node == node]

    def names_not_on(self, node: str) -> list[str]:
        """What ran elsewhere."""
        return [name for name, address in self.before.items() if address.node != node]

    def holds(self, node: str) -> set[str]:
        """What runs there now."""
        return {name for name, address in self.client.locate_many(self.wanted).items() if address.node == node}

    def prefers(self, node: str) -> set[str]:
        """What the ring wants there."""
        return {name for name in self.wanted if chosen_by_ring(name, self.proxies) == node}

    def wait_leader(self) -> tuple[str, Leader]:
        """The node that leads, and its lease."""
        leader = wait_until(self.client.leader, within=SOON, because="a monitor is elected")
        return str(leader.node), leader

    def other_node(self, node: str) -> str:
        """A node that is another one."""
        return next(name for name in self.proxies if name != node)

    def wait_moved(self, node: str) -> None:
        """Wait until what ran on a node runs elsewhere."""
        names = self.names_on(node)
        wait_until(lambda: self.client.moved(names, off=node), within=SOON, because=f"{node} is left")

    def wait_event(self, event: str, *, since: str = "0-0", times: int = 1) -> None:
        """Wait until the journal tells of something, after an entry's id."""
        wait_until(lambda: len(self.events(event, since)) >= times, within=SOON, because=f"{event} is journalled")

    def events(self, event: str, since: str = "0-0") -> list[Any]:
        """The journal's entries about something, after an entry's id."""
        after = _position(since)
        return [one for one in self.client.events(last=2000) if one.event == event and _position(one.id) > after]

    def journal_end(self) -> str:
        """The id of the newest entry."""
        last = self.client.events(last=1)
        return last[-1].id if last else "0-0"

    # Processes

    def agent(self, node: str) -> psutil.Process:
        """The agent of a node."""
        (found,) = self.agents(node)
        return found

    def agents(self, node: str) -> list[psutil.Process]:
        """The agent of a node, if there is one."""
        return [one for one in self.workers[node].tree() if _command(one)[1:3] == ["-m", "celery_daemons.node"]]

    def hosts(self, node: str) -> list[psutil.Process]:
        """Its hosts."""
        return self._titled(node, "celery_daemons.host")

    def monitor(self, node: str) -> psutil.Process:
        """Its monitor."""
        (found,) = self._titled(node, "celery_daemons.monitor")
        return found

    def _titled(self, node: str, title: str) -> list[psutil.Process]:
        return [one for one in self.workers[node].tree() if any(part.startswith(title) for part in _command(one))]

    # Acting

    def run_task(self, queue: str) -> None:
        """Send an ordinary task and wait until a worker has carried it out."""
        word = f"{queue} at {time.monotonic()}"
        with Celery(broker=self.project.broker_url) as app:
            app.send_task("proj.note", args=[word], queue=queue)
        notes = self.project.folder / "notes"
        wait_until(lambda: notes.exists() and word in notes.read_text(), within=SOON, because=f"{queue} is consumed")

    def list_daemons(self, names: Iterable[str]) -> None:
        """What the recovery scanners yield from now on."""
        path = self.project.folder / "listed.json"
        path.with_suffix(".new").write_text(json.dumps(sorted(names)))
        path.with_suffix(".new").replace(path)

    def flag(self, name: str, *, up: bool = True) -> None:
        """Raise or lower a flag that the project's code looks at."""
        path = self.project.folder / name
        if up:
            path.touch()
        else:
            path.unlink(missing_ok=True)

    def move_all_from(self, node: str) -> None:
        """Let what runs on a node move away from it, and let the node take daemons again."""
        self.client.drain(node, wait=SOON)
        self.wait_moved(node)
        self.client.uncordon(node)

    def retarget(self, server: Server) -> None:
        """Let every proxy lead to another server."""
        self.server = server
        for proxy in (*self.proxies.values(), self.client_proxy):
            proxy.retarget(server.port)

    def _new_proxy(self) -> Proxy:
        return self._resources.enter_context(Proxy(self.server.port))

    def worker(self, node: str, *more: str) -> Worker:
        """A worker by the name of a node, with more options than usual; the cluster closes those of its own only."""
        proxy = self.proxies[node].url
        env = {"BOOK_URL": proxy, "QUEUE_URL": proxy if self._broker == "behind" else self.project.broker_url}
        name = node.partition("@")[0]
        options = ["--without-mingle", "--without-gossip", *self._options.get(name, ()), *more]
        return Worker(self.project, name, concurrency=1, options=options, env=env)

    def _run_since(self, began: float) -> dict[str, Address] | None:
        """Where everything is, if each has shown a sign of life since then, under the token of the book."""
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
