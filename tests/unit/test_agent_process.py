"""What a worker concludes from the death of its agent; the agent is a stand-in, the processes around it are real."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from celery_daemons.worker import agent_process
from celery_daemons.worker.agent_process import AgentProcess
from tests.support.boots import new_boot
from tests.support.waiting import wait_until

#: Stands in for the agent: reads its orders from a file, and records what its boot message says.
AGENT = """
import msgspec, os, socket, subprocess, sys, time
from celery_daemons.wire.channel import pack
from celery_daemons.wire.messages import Boot, JoinedAs

folder = os.environ["STAND_IN"]
boot = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Boot)
fd, lifeline = int(sys.argv[2]), int(sys.argv[4])
number = len(os.listdir(folder)) - 1
order = open(f"{folder}/orders").read().split()[number]
if order == "host":
    # A host in a session of its own that does not notice the death of its agent.
    host = subprocess.Popen(["sleep", "60"], pass_fds=[lifeline], start_new_session=True)
elif order == "group":
    host = subprocess.Popen(["sleep", "60"], pass_fds=[lifeline])
if order in ("host", "group"):
    open(os.environ["HOST_PID"], "w").write(str(host.pid))
if order != "refused":
    socket.socket(fileno=fd).sendall(pack(JoinedAs(f"i{number}")))
open(f"{folder}/{number}.previous", "w").write(str(boot.previous))
time.sleep(60)
"""


class AgentHarness:
    """An agent process whose agents act on orders: ``host``, ``group``, ``alone`` or ``refused``, one for each."""

    def __init__(self, folder: Path, orders: list[str]) -> None:
        self.folder = folder / "stand-in"
        self.folder.mkdir()
        (self.folder / "orders").write_text(" ".join(orders))
        self.agent = AgentProcess(new_boot())

    def previous(self, number: int) -> str | None:
        """Return the incarnation that the boot message of an agent names as dead, None before that agent runs."""
        path = self.folder / f"{number}.previous"
        self.agent.keep_alive()
        return path.read_text() if path.exists() else None

    def wait_started(self, number: int) -> str:
        """Wait until an agent runs; return the incarnation that its boot message names as dead."""
        return wait_until(lambda: self.previous(number), within=10, because=f"agent {number} starts")

    def kill(self) -> None:
        """Kill the agent and nothing else."""
        self.agent.keep_alive()
        pid = self.agent.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return a function that starts agents on orders."""
    harnesses: list[AgentHarness] = []
    popen = subprocess.Popen

    def start(*orders: str) -> AgentHarness:
        harness = AgentHarness(tmp_path, list(orders))
        monkeypatch.setenv("STAND_IN", str(harness.folder))

        def replaced(command: list[str], **options: Any) -> Any:
            assert command[:3] == [sys.executable, "-m", "celery_daemons.node"]
            return popen([sys.executable, "-c", AGENT, *command[3:]], **options)

        monkeypatch.setattr(agent_process.subprocess, "Popen", replaced)
        harnesses.append(harness)
        harness.agent.start()
        harness.wait_started(0)
        return harness

    host = tmp_path / "host.pid"
    monkeypatch.setenv("HOST_PID", str(host))
    yield start
    for harness in harnesses:
        harness.agent.drain(0)
        harness.agent.wait(0, hurried=lambda: False)
    if host.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(host.read_text()), signal.SIGKILL)


def test_the_next_agent_takes_over_from_an_incarnation_that_was_seen_dead(stand_in: Any) -> None:
    agents = stand_in("alone", "alone")
    agents.kill()

    assert agents.wait_started(1) == "i0"


def test_an_incarnation_that_was_seen_dead_stays_so_if_the_next_agent_dies_before_it_joins(stand_in: Any) -> None:
    agents = stand_in("alone", "refused", "alone")
    agents.kill()
    agents.wait_started(1)
    agents.kill()

    assert agents.wait_started(2) == "i0"


def test_an_incarnation_whose_host_lives_is_never_named_as_dead(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks invariants 1 and 9: the second agent dies before it joins, and all of *its* processes are seen dead."""
    # Given a host that outlives its agent
    monkeypatch.setattr(agent_process, "_HOSTS_EXIT_TIMEOUT", 0.5)
    agents = stand_in("host", "refused", "alone")

    # When
    agents.kill()
    assert agents.wait_started(1) == "None"
    agents.kill()

    # Then
    assert agents.wait_started(2) == "None"


def test_the_hosts_of_a_dead_agent_are_killed_though_other_code_has_reaped_the_agent(stand_in: Any) -> None:
    """Attacks invariant 6: gevent reaps every child of its process."""
    # Given
    agents = stand_in("group", "alone")
    pid = agents.agent.pid
    (host,) = psutil.Process(pid).children()

    # When
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    # Then
    assert agents.wait_started(1) == "i0"
    assert not host.is_running() or host.status() == psutil.STATUS_ZOMBIE


def test_an_agent_starts_after_any_number_of_deaths(stand_in: Any) -> None:
    """Attacks invariant 7: two to the power of the number of deaths is more than a float can hold after 1,025."""
    agents = stand_in("alone", "alone")
    agents.agent._deaths = 5000
    agents.agent._started_at = time.monotonic()
    agents.kill()
    wait_until(lambda: agents.agent.keep_alive() or agents.agent.pid is None, within=10, because="the death is noted")
    agents.agent._died_at -= agent_process._MAX_PAUSE

    assert agents.wait_started(1) == "i0"
