"""A loop that hangs is found within 15 s; the loss of Redis or the broker does not count as a hang."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from celery_daemons.store.keys import Keys
from celery_daemons.store.server_pin import server_id
from tests.conftest import RUNNING
from tests.support.clusters import COROUTINE_AND_FUNCTION, SOON, IntegrationCluster, title
from tests.support.probes import Probe, probe
from tests.support.servers import Server, free_port
from tests.support.waiting import wait_until
from tests.support.workers import Worker

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300)]

#: What the reference promises, and a second for the process that polls.
FOUND_WITHIN = 16.0
#: Seconds after which a file counts as stale for `find -mmin -0.25`.
STALE_AFTER = 15.0


class Systemd:
    """Receives what a unit of ``Type=notify`` sends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(self.path))
        self.messages: list[tuple[float, str]] = []
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                text = self._sock.recv(4096).decode()
                self.messages.append((time.monotonic(), text))

    def lines(self) -> list[str]:
        """Return every line so far."""
        return [line for _, text in self.messages for line in text.splitlines()]

    def silent_for(self) -> float:
        """Return the seconds since the last keep-alive."""
        return time.monotonic() - max(at for at, text in self.messages if text == "WATCHDOG=1")

    def close(self) -> None:
        """Stop receiving."""
        self._sock.close()


class Observed:
    """A worker, and what observes it."""

    def __init__(self, cluster: IntegrationCluster, worker: Worker, port: int, systemd: Systemd, file: Path) -> None:
        self.cluster = cluster
        self.worker = worker
        self.port = port
        self.systemd = systemd
        self.file = file

    def process(self, part: str) -> psutil.Process:
        """Return the process of the worker whose title has this text."""
        return next(one for one in self.worker.tree() if part in title(one))

    def fresh(self) -> bool:
        """Return whether the file counts for ``find``."""
        try:
            return time.time() - self.file.stat().st_mtime < STALE_AFTER
        except FileNotFoundError:
            return False


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, valkey: Server) -> Iterator[Observed]:
    folder = tmp_path_factory.mktemp("frozen")
    port, systemd, file = free_port(), Systemd(folder), folder / "healthy"
    # A long lease: the agent replaces a frozen monitor only after 0.6 of it, and the probe comes first.
    settings = {"http": f"127.0.0.1:{port}", "health_file": str(file), "lease_ttl": 60.0, "heartbeat_interval": 1.0}
    with IntegrationCluster(folder, valkey, COROUTINE_AND_FUNCTION, settings=settings, pool="prefork") as cluster:
        # The server counts as confirmed, so that nothing waits for that lease.
        with valkey.client() as client:
            run_id, history = client.info("server")["run_id"], client.info("replication")["master_replid"]
            client.hset(Keys(cluster.namespace).cluster, "server", server_id(run_id, history))
        env = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "3000000"}
        worker = cluster.worker("w1", env=env)
        cluster.spawn("one", "coroutine")
        cluster.spawn("two", "function")
        yield Observed(cluster, worker, port, systemd, file)
    systemd.close()


@pytest.fixture
def observed(shared: Observed, request: pytest.FixtureRequest) -> Observed:
    request.node.stash[RUNNING] = [shared.worker]
    for path in ("/livez", "/livez/worker"):
        wait_until(lambda path=path: probe(shared.port, path).status == 200, within=60, because="all loops respond")
    wait_until(shared.fresh, within=SOON, because="the file is touched each second")
    wait_until(lambda: shared.systemd.silent_for() < 2, within=SOON, because="the watchdog is notified")
    return shared


def find(observed: Observed, pid: int, fails: Callable[[], bool]) -> None:
    """Stop a process, and wait until probe, file and watchdog have found it within the promised time."""
    stopped_at = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(fails, within=FOUND_WITHIN, because=f"process {pid} hangs")
        wait_until(
            lambda: not observed.fresh(),
            within=FOUND_WITHIN + 1 - (time.monotonic() - stopped_at),
            because="the file is removed, or is stale",
        )
        wait_until(lambda: observed.systemd.silent_for() > 2, within=4, because="no further keep-alive is sent")
    finally:
        # The agent may have replaced it.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_a_frozen_shared_host_fails_livez(observed: Observed) -> None:
    address = observed.cluster.daemons.locate("one")
    assert address is not None

    find(observed, address.pid, lambda: f"host {address.pid} has not responded" in probe(observed.port, "/livez").text)


def test_a_frozen_isolated_host_fails_livez(observed: Observed) -> None:
    address = observed.cluster.daemons.locate("two")
    assert address is not None

    find(observed, address.pid, lambda: f"host {address.pid} has not responded" in probe(observed.port, "/livez").text)


def test_a_frozen_monitor_fails_livez(observed: Observed) -> None:
    monitor = observed.process("celery_daemons.monitor")

    find(observed, monitor.pid, lambda: "monitor's loop has not responded" in probe(observed.port, "/livez").text)


def test_a_frozen_worker_fails_its_probe_and_not_that_of_the_agent(observed: Observed) -> None:
    def fails() -> bool:
        assert probe(observed.port, "/livez").status == 200
        return "timer has not ticked" in probe(observed.port, "/livez/worker").text

    find(observed, observed.worker.pid, fails)


def test_a_frozen_agent_does_not_answer(observed: Observed) -> None:
    agent = observed.cluster.agent(observed.worker)

    find(observed, agent.pid, lambda: probe(observed.port, "/livez", within=1.0).status == 0)


def test_systemd_is_notified_of_join_state_and_end(observed: Observed) -> None:
    lines = observed.systemd.lines()

    assert lines.count("READY=1") == 1
    assert "STATUS=2 daemons, leads" in lines
    # And no process of the user can send messages for the unit
    for name in ("one", "two"):
        address = observed.cluster.daemons.locate(name)
        assert address is not None
        assert b"NOTIFY_SOCKET" not in Path(f"/proc/{address.pid}/environ").read_bytes()

    observed.worker.stop()

    assert "STOPPING=1" in observed.systemd.lines()
    assert not observed.file.exists()


#: Seconds without the server. The longest time-out of any part is the 15 s of the agent, and no part depends on how
#: long the server is away, so a minute has the same effect as ten.
OUTAGE = 60.0


@pytest.mark.parametrize("lost", ["redis", "broker"])
def test_no_liveness_probe_fails_while_a_server_is_away(
    lost: str, new_server: Callable[..., Server], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Attacks: an outage of Redis would restart every worker, and so stop all tasks."""
    # Given a worker whose broker is not the Redis of the address book
    server, broker, port = new_server(), new_server(), free_port()
    settings = {"http": f"127.0.0.1:{port}"}
    with IntegrationCluster(
        tmp_path, server, COROUTINE_AND_FUNCTION, broker_url=broker.url, settings=settings, pool="prefork"
    ) as cluster:
        worker = cluster.worker("w1")
        request.node.stash[RUNNING] = [worker]
        cluster.spawn("one", "coroutine")
        wait_until(lambda: probe(port, "/readyz").status == 200, within=SOON, because="the node has joined")

        # When one of the two stops
        away = server if lost == "redis" else broker
        away.stop()
        answers: list[tuple[str, Probe]] = []
        end = time.monotonic() + OUTAGE
        while time.monotonic() < end:
            answers += [(path, probe(port, path)) for path in ("/livez", "/livez/worker")]
            time.sleep(0.5)

        # Then no probe has failed
        assert len(answers) > OUTAGE
        assert [found for found in answers if found[1].status != 200] == []
        assert probe(port, "/readyz").status == (503 if lost == "redis" else 200)

        # And everything is ready once the server is back
        away.start()
        away.wait_ready()
        wait_until(lambda: probe(port, "/readyz").status == 200, within=60, because="the server is back")
        wait_until(lambda: probe(port, "/livez/worker").status == 200, within=60, because="the worker consumes")
