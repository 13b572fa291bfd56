"""The cluster of the chaos runs: a Valkey whose clock is set, workers and monitors, each behind its own network."""

import random
import shutil
import time
from contextlib import ExitStack
from pathlib import Path

from celery_daemons.errors import DaemonsError
from tests.chaos.members import LEASES, Candidate, Member, Node
from tests.chaos.recorder import RECORDED_LAUNCHERS, Recorder
from tests.support.clients import TestClient
from tests.support.fake_clock import FakeClock
from tests.support.projects import PRELUDE, Project
from tests.support.servers import Server

#: Nodes and monitors without workers.
NODES = 4
CANDIDATES = 2
#: Times are in seconds. Every node knows the longest lease: without that, the guarantees have a documented exception.
SETTINGS = {
    "heartbeat_interval": 0.4,
    "lease_ttl_max": max(LEASES),
    "scan_interval": 10.0,
    "drain_timeout": 10.0,
    "settle_delay": 1.0,
}


class ChaosCluster:
    """Four nodes with different leases, their daemons, and two monitors without workers."""

    def __init__(self, folder: Path, stack: ExitStack, *, walks: int, solos: int) -> None:
        self.clock = FakeClock(folder)
        self.server = stack.enter_context(Server("valkey", "save 3600 1", env=self.clock.env))
        #: Before this time, Redis's clock is not set again.
        self.no_step_before = 0.0
        self._latest_shown = 0.0
        #: Copies of Redis's data, the oldest first.
        self.snapshots: list[Path] = []
        self._folder = folder
        source = PRELUDE.replace("broker=BROKER_URL", "broker=os.environ.get('REDIS', BROKER_URL)")
        head = f"WALKS, SOLOS = {walks}, {solos}\n"
        for name in ("signs", "snapshots"):
            (folder / name).mkdir()
        project = Project(
            folder, head + source + RECORDED_LAUNCHERS, broker_url=self.server.url, namespace="chaos", settings=SETTINGS
        )
        self.names = [f"walk.{n}" for n in range(walks)] + [f"solo.{n}" for n in range(solos)]
        self.recorder = Recorder(folder / "signs")
        self.client = TestClient.connect(self.server.url, "chaos", vnodes=40)
        stack.callback(self.client.close)
        port = self.server.port
        self.nodes = [
            Node(project, f"w{number + 1}", stack, port, lease=LEASES[number % len(LEASES)], folder=folder / "disks")
            for number in range(NODES)
        ]
        self.candidates = [
            Candidate(project, f"m{number + 1}", stack, port, lease=LEASES[1]) for number in range(CANDIDATES)
        ]

    @property
    def not_possible(self) -> list[str]:
        """Return the faults that this process has no privilege to cause."""
        found = []
        if any(node.disk is None for node in self.nodes):
            found.append("disk full (a file system cannot be mounted)")
        if any(node.process_limit is None for node in self.nodes):
            found.append("forks refused (a control group for processes cannot be created)")
        return found

    def idle(self) -> list[Node]:
        """Return the nodes without a fault at the moment."""
        return [node for node in self.nodes if _is_idle(node)]

    def idle_candidates(self) -> list[Candidate]:
        """Return the monitors without workers that have no fault at the moment."""
        return [candidate for candidate in self.candidates if _is_idle(candidate)]

    def start_ended(self, rng: random.Random) -> int:
        """Start the workers again that have ended by themselves, as a service manager does; return how many.

        Celery's worker ends where it can fork no pool process, or opens too many files.
        """
        ended = [node for node in self.nodes if not node.process.running]
        for node in ended:
            node.restart(rng)
        return len(ended)

    def at(self, node: Node) -> list[str]:
        """Return the daemons on a node according to the address book."""
        try:
            return [record.name for record in self.client.list(node=node.name)]
        except DaemonsError:
            return []

    @property
    def behind(self) -> float:
        """Return by how many seconds Redis's clock is behind the latest time that it has shown."""
        return max(0.0, self._latest_shown - self._shown)

    def step_clock(self, seconds: float) -> None:
        """Set Redis's clock forward by so many seconds, or back by a negative number."""
        self._latest_shown = max(self._latest_shown, self._shown)
        self.clock.step(seconds)

    @property
    def _shown(self) -> float:
        """Return the time that Redis's clock shows, apart from a constant."""
        return time.monotonic() + self.clock.ahead

    def save(self) -> None:
        """Let Redis save, and keep a copy."""
        with self.server.client() as redis:
            redis.save()
        copy = self._folder / "snapshots" / f"{len(self.snapshots)}.rdb"
        shutil.copy(self._saved, copy)
        self.snapshots.append(copy)

    def restore(self, snapshot: Path) -> None:
        """Kill Redis, and start it with an earlier copy of its data."""
        self.server.kill()
        shutil.copy(snapshot, self._saved)
        self.server.start()

    @property
    def _saved(self) -> Path:
        return self.server.folder / "data" / "dump.rdb"

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


def _is_idle(member: Member) -> bool:
    return member.busy_until < time.monotonic() and member.process.running
