"""The cluster of the chaos runs: a Valkey, a proxy per node, and workers that are restarted when they die."""

import random
import time
from contextlib import ExitStack
from pathlib import Path

import psutil

from celery_daemons.errors import DaemonsError
from tests.chaos.recorder import RECORDED_LAUNCHERS, Recorder
from tests.support.clients import TestClient
from tests.support.projects import PRELUDE, Project
from tests.support.proxy import Proxy
from tests.support.servers import Server
from tests.support.workers import Worker

SETTINGS = {
    "lease_ttl": 2.0,
    "heartbeat_interval": 0.4,
    "scan_interval": 10.0,
    "drain_timeout": 10.0,
    "settle_delay": 1.0,
}
LEASE = 2.0


class Node:
    """A node: its current worker, and the proxy between the worker and Redis."""

    def __init__(self, cluster: "ChaosCluster", name: str) -> None:
        self.name = f"{name}@test"
        self._short = name
        self._cluster = cluster
        self.proxy = cluster.stack.enter_context(Proxy(cluster.server.port))
        self.worker = self._new()
        self.busy_until = 0.0

    def _new(self) -> Worker:
        worker = Worker(self._cluster.project, self._short, concurrency=1, env={"REDIS": self.proxy.url})
        worker.start()
        return worker

    def restart(self) -> None:
        """Start a new worker where the old one died."""
        self.worker.close()
        self.worker = self._new()

    def agent(self) -> psutil.Process | None:
        """The agent's process, if there is one."""
        return self._first(lambda line: line[1:3] == ["-m", "celery_daemons.node"])

    def role(self, role: str) -> psutil.Process | None:
        """A process whose title begins with ``celery_daemons.<role>``; any one of several."""
        return self._first(lambda line: line[0].startswith(f"celery_daemons.{role}"))

    def _first(self, matches: "object") -> psutil.Process | None:
        found = []
        for process in self.worker.tree():
            try:
                line = process.cmdline()
                if line and process.status() != psutil.STATUS_ZOMBIE and matches(line):  # type: ignore[operator]
                    found.append(process)
            except psutil.Error:
                continue
        return self._cluster.rng.choice(found) if found else None


class ChaosCluster:
    """Four nodes and their daemons."""

    def __init__(self, folder: Path, stack: ExitStack, rng: random.Random, *, walks: int, solos: int) -> None:
        self.rng = rng
        self.stack = stack
        self.server = stack.enter_context(Server("valkey", "save 3600 1"))
        source = PRELUDE.replace("broker=BROKER_URL", "broker=os.environ.get('REDIS', BROKER_URL)")
        head = f"WALKS, SOLOS = {walks}, {solos}\n"
        (folder / "signs").mkdir()
        self.project = Project(
            folder, head + source + RECORDED_LAUNCHERS, broker_url=self.server.url, namespace="chaos", settings=SETTINGS
        )
        self.names = [f"walk.{n}" for n in range(walks)] + [f"solo.{n}" for n in range(solos)]
        self.recorder = Recorder(folder / "signs")
        self.client = TestClient.connect(self.server.url, "chaos", vnodes=40)
        stack.callback(self.client.close)
        self.nodes = [Node(self, f"w{number}") for number in range(1, 5)]
        for node in self.nodes:
            stack.callback(lambda node=node: node.worker.close())

    def idle(self) -> list[Node]:
        """Return the nodes without a fault at the moment."""
        now = time.monotonic()
        return [node for node in self.nodes if node.busy_until < now and node.worker.running]

    def at(self, node: Node) -> list[str]:
        """Return the daemons on a node according to the address book."""
        try:
            return [record.name for record in self.client.list(node=node.name)]
        except DaemonsError:
            return []

    def watch(self, seconds: float) -> None:
        """Wait, and keep reading what the daemons record."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.recorder.read()
            time.sleep(min(0.1, left))

    def whole(self, within: float) -> set[str]:
        """Wait until every daemon has recorded itself within the last second; return the daemons that have not."""
        deadline = time.monotonic() + within
        while True:
            self.recorder.read()
            since = time.monotonic() - 1.0
            silent = {name for name in self.names if not self.recorder.alive(name, since=since)}
            if not silent or time.monotonic() > deadline:
                return silent
            time.sleep(0.1)
