"""Health is reported to the file and to systemd, and neither can stop the agent."""

import os
import socket
import time
from pathlib import Path

import pytest

from celery_daemons.node.health_file import HealthFile
from celery_daemons.node.health_reporter import HealthReporter
from celery_daemons.node.probes import Probes
from celery_daemons.node.service_manager import ServiceManager
from celery_daemons.node.vitals import Vitals


class Joining:
    """A node that joins when a test says so."""

    started = False

    def why_not(self) -> str:
        return "" if self.started else "waits for Redis"


class Harness:
    """A reporter on a clock that the test sets, and what it sends to systemd."""

    def __init__(self, folder: Path, *, watchdog_usec: str = "9000000", file: Path | None = None) -> None:
        self.now = 0.0
        self.questions = 0
        self.problems: list[str] = []
        self.readiness = Joining()
        self.vitals = Vitals(no_ticks="", now=0.0)
        self.file = file or folder / "healthy"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(folder / "notify"))
        self._sock.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": watchdog_usec, "PATH": "/bin"}
        self.reporter = HealthReporter(
            node="n1",
            vitals=self.vitals,
            probes=Probes(vitals=self.vitals, readiness=self.readiness),
            readiness=self.readiness,
            ask_hosts=self._ask,
            health_file=HealthFile(str(self.file), node="n1"),
            service_manager=ServiceManager.from_environment(self.environment, worker_pid=os.getpid()),
            describe=lambda: "7 daemons",
            report_problem=self.problems.append,
        )

    def _ask(self) -> None:
        self.questions += 1

    def pass_seconds(self, seconds: int) -> list[str]:
        """Let the reporter run once a second, and return what it has sent."""
        for _ in range(seconds):
            self.reporter.report(self.now)
            self.now += 1
        return self.sent()

    def sent(self) -> list[str]:
        """Return the datagrams since the last call."""
        found = []
        try:
            while True:
                found.append(self._sock.recv(4096).decode())
        except BlockingIOError:
            return found


def test_systemd_is_asked_for_time_until_the_node_has_joined(tmp_path: Path) -> None:
    """Attacks: systemd could stop the worker's own tasks while the node waits to join."""
    harness = Harness(tmp_path)

    assert harness.pass_seconds(20) == ["STATUS=waits for Redis\nEXTEND_TIMEOUT_USEC=30000000"] * 2

    harness.readiness.started = True
    assert harness.pass_seconds(1) == ["READY=1", "STATUS=7 daemons", "WATCHDOG=1"]


def test_the_watchdog_gets_three_messages_per_timeout_and_only_while_all_loops_respond(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.readiness.started = True
    harness.pass_seconds(1)

    # Given a host that answers
    assert harness.pass_seconds(9) == ["WATCHDOG=1"] * 3
    # When it no longer does
    harness.vitals.host_ready("h", "the loop of host 7", harness.now)
    harness.pass_seconds(13)

    # Then systemd gets no message, and the file is gone
    assert harness.pass_seconds(20) == []
    assert not harness.file.exists()
    harness.vitals.host_answered("h", harness.now)
    assert harness.pass_seconds(1) == ["WATCHDOG=1"]
    assert harness.file.exists()


def test_the_end_of_the_worker_is_reported_once_and_the_watchdog_lengthened(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.readiness.started = True
    harness.pass_seconds(1)

    harness.vitals.worker_ends()

    assert harness.pass_seconds(2)[0] == "STOPPING=1\nWATCHDOG_USEC=86400000000"
    assert harness.pass_seconds(30).count("STOPPING=1") == 0


def test_the_end_of_a_worker_that_is_over_before_the_next_round_is_reported(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.vitals.worker_ends()

    harness.reporter.close()

    assert harness.sent() == ["STOPPING=1\nWATCHDOG_USEC=86400000000"]


def test_the_variables_of_systemd_are_taken_out_of_the_environment(tmp_path: Path) -> None:
    """Attacks: a program that a daemon starts could send messages for the unit."""
    assert Harness(tmp_path).environment == {"PATH": "/bin"}


def test_a_watchdog_for_another_process_is_left_to_that_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}

    manager = ServiceManager.from_environment(environment, worker_pid=2)
    manager.alive(0.0)

    assert "start the worker by exec" in caplog.text


def test_a_service_manager_that_is_gone_is_no_error() -> None:
    manager = ServiceManager("/nowhere/notify", watchdog=1.0)

    manager.ready()
    manager.alive(0.0)
    manager.stopping()


def test_hosts_are_asked_every_third_second(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.pass_seconds(9)

    assert harness.questions == 3


def test_the_file_is_touched_while_the_node_is_healthy_and_removed_at_the_end(tmp_path: Path) -> None:
    harness = Harness(tmp_path)
    harness.pass_seconds(1)
    os.utime(harness.file, (0, 0))

    harness.pass_seconds(1)
    assert time.time() - harness.file.stat().st_mtime < 60

    harness.reporter.close()
    assert not harness.file.exists()


def test_a_file_that_cannot_be_written_is_reported_once_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "absent"
    harness = Harness(tmp_path, file=folder / "healthy")

    harness.pass_seconds(3)
    assert len(harness.problems) == 1
    assert "cannot touch" in harness.problems[0]
    assert caplog.text.count("cannot touch") == 1

    folder.mkdir()
    harness.pass_seconds(1)
    assert harness.problems[1:] == [""]


def test_a_fifo_as_health_file_does_not_block_the_agent(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    file = HealthFile(str(path), node="n1")

    file.touch()

    assert "cannot touch" in file.problem
