"""A cluster for integration tests: a project, workers on it, and a client in this process."""

import importlib.util
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import psutil

from celery_daemons import Address, DaemonRecord, Daemons, DaemonStatus, Node
from celery_daemons.store.keys import LAYOUT, Keys
from tests.support.projects import PRELUDE, Project
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import Worker

#: Seconds within which everything here happens, even on a busy build machine.
SOON = 30.0
#: Frequent heartbeats, and a lease long enough to survive on a busy machine.
BRISK: dict[str, Any] = {"lease_ttl": 4.0, "heartbeat_interval": 0.3, "reconcile_interval": 1.0, "drain_timeout": 15.0}

#: Separate queues, and ``note``, with which daemons and tasks append to the event log of the project.
EVENT_LOG = (
    PRELUDE
    + """
import json, signal, threading

app.conf.update(task_default_queue=NAMESPACE, broker_connection_retry_on_startup=True)

def note(name, event, **more):
    entry = {"name": name, "event": event, "pid": os.getpid(), "thread": threading.get_native_id(), **more}
    with open(FOLDER + "/events", "a") as events:
        events.write(json.dumps(entry) + "\\n")
"""
)
#: A launcher for each way to run, whose daemons note when they begin and end; to be added to EVENT_LOG.
NOTED_RUNS = """
@daemons.launcher
async def coroutine(ctx):
    note(ctx.name, "runs")
    try:
        await asyncio.Event().wait()
    finally:
        note(ctx.name, "ends")

@daemons.launcher
def function(ctx):
    note(ctx.name, "runs")
    ctx.stopping.wait()
    note(ctx.name, "ends")

@daemons.launcher(isolation="thread")
def threaded(ctx):
    function(ctx)
"""
#: Two launchers for tests in which it does not matter what a daemon does.
COROUTINE_AND_FUNCTION = (
    EVENT_LOG
    + """
@daemons.launcher
async def coroutine(ctx):
    await asyncio.Event().wait()

@daemons.launcher
def function(ctx):
    ctx.stopping.wait()
"""
)


class IntegrationCluster:
    """A project with its own folder and namespace; its workers run until the end of the ``with`` block."""

    def __init__(
        self,
        folder: Path,
        server: Server,
        source: str,
        *,
        broker_url: str | None = None,
        settings: Mapping[str, Any] | None = None,
        pool: str = "solo",
    ) -> None:
        self.server = server
        self.pool = pool
        self.namespace = f"cluster-{uuid.uuid4().hex[:12]}"
        folder.mkdir(parents=True, exist_ok=True)
        self.project = Project(
            folder,
            source,
            broker_url=broker_url or server.url,
            namespace=self.namespace,
            settings={**BRISK, "redis_url": server.url, **(settings or {})},
        )
        self.workers: dict[str, Worker] = {}
        self._skip_grace_period()
        self.module = self._imported()
        self.daemons: Daemons = self.module.daemons

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.close()
        self.daemons.cluster.close()
        self.module.app.close()

    def worker(self, name: str = "w1", **options: Any) -> Worker:
        """Return the worker of that name, started with these options unless already running, with its node up."""
        if name not in self.workers:
            options["options"] = ["--without-mingle", "--without-gossip", *options.get("options", ())]
            self.workers[name] = Worker(self.project, name, **{"pool": self.pool, **options})
        worker = self.workers[name]
        if not worker.running:
            worker.start()
            worker.wait_ready()
        if "--no-daemons" not in options.get("options", ()):
            wait_until(lambda: self.node(worker), within=SOON, because="a worker becomes a node")
        return worker

    def node(self, worker: Worker) -> Node | None:
        """Return the node of a worker if the node is up with the current process."""
        return next((n for n in self.daemons.nodes() if n.pid == worker.pid and n.status == "up"), None)

    def agent(self, worker: Worker) -> psutil.Process:
        """Return the agent of a worker."""
        (found,) = [child for child in psutil.Process(worker.pid).children() if "celery_daemons.node" in title(child)]
        return found

    def events(self, name: str, event: str | None = None) -> list[dict[str, Any]]:
        """Return the logged events of a daemon or task, oldest first."""
        path = self.project.folder / "events"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [one for one in entries if one["name"] == name and event in (None, one["event"])]

    def wait_event(self, name: str, event: str, *, times: int = 1) -> dict[str, Any]:
        """Wait until an event was logged ``times`` times, and return its last entry."""
        wait_until(lambda: len(self.events(name, event)) >= times, within=SOON, because=f"{name} notes {event!r}")
        return self.events(name, event)[-1]

    def spawn(self, name: str, launcher: str, *args: Any, **kwargs: Any) -> Address:
        """Spawn a daemon, wait until it runs, and return its address."""
        address = self.daemons.spawn(name, launcher, args=args, kwargs=kwargs, wait=SOON)
        assert address is not None
        return address

    def running(self, *names: str) -> dict[str, Address]:
        """Return the addresses of the daemons that run."""
        found = self.daemons.locate_many(names)
        return {name: address for name, address in found.items() if address.status is DaemonStatus.RUNNING}

    def record(self, name: str) -> DaemonRecord:
        """Return the record of a daemon."""
        return next(record for record in self.daemons.list() if record.name == name)

    def wait_status(self, name: str, status: str) -> DaemonRecord:
        """Wait until a daemon has this status, and return its record."""
        wait_until(lambda: self.record(name).status == status, within=SOON, because=f"{name} becomes {status}")
        return self.record(name)

    def wait_restarted(self, before: Address) -> Address:
        """Wait until a daemon runs under a newer token than ``before``, and return its address."""

        def newer() -> Address | None:
            found = self.daemons.locate(before.name)
            return found if found and found.token > before.token and found.status is DaemonStatus.RUNNING else None

        found = wait_until(newer, within=SOON, because=f"{before.name} is restarted")
        assert found is not None
        return found

    def forget_all(self) -> None:
        """Forget all daemons and wait until they have stopped."""
        for record in self.daemons.list():
            self.daemons.forget(record.name)
        wait_until(
            lambda: not any(node.daemons for node in self.daemons.nodes() if node.status == "up"),
            within=SOON,
            because="forgotten daemons are stopped",
        )

    def redis_keys(self) -> set[str]:
        """Return all keys of the namespace, including those of its queues."""
        with self.server.client() as client:
            return set(client.scan_iter(match=f"*{self.namespace}*", count=1000))

    def _skip_grace_period(self) -> None:
        """Make the cluster look old: in a new cluster, the monitor waits for one lease before it acts."""
        with self.server.client() as client:
            client.hset(Keys(self.namespace).cluster, mapping={"layout": LAYOUT, "created_ms": "1"})

    def _imported(self) -> ModuleType:
        """Import the module of the project into this process, so that tests can send its tasks."""
        spec = importlib.util.spec_from_file_location(self.project.module, self.project.folder / "proj.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def title(process: psutil.Process) -> str:
    """Return what ``ps`` shows of a process, or nothing after its end."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
