"""No failure of the system or of the broker, whichever call it hits, leaves the code in the worker as an exception."""

import errno
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_daemons.wire.messages import Campaign
from celery_daemons.worker import agent_process
from celery_daemons.worker.agent_process import AgentProcess
from celery_daemons.worker.socket_folder import new_socket_folder
from tests.support.boots import new_boot

#: Every call of the system with which an agent is started.
STARTING = ["tempfile.mkdtemp", "socket.socketpair", "os.memfd_create", "os.write", "os.lseek", "subprocess.Popen"]
#: Every call of the system with which a running agent is checked, given messages and ended.
RUNNING = ["os.waitid", "os.killpg", "shutil.rmtree"]
ERRORS = [errno.EMFILE, errno.EAGAIN, errno.ENOSPC, errno.ENOENT, errno.EACCES, errno.ENOMEM, errno.EPERM, errno.EIO]


class Clock:
    """The time of the agent's parent, moved by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        time.sleep(0.001)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(agent_process, "time", clock)
    return clock


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Iterator[AgentProcess]:
    """The parent of an agent that does nothing."""
    idle = tmp_path / "python"
    idle.write_text("#!/bin/sh\nexec sleep 60\n")
    idle.chmod(idle.stat().st_mode | stat.S_IXUSR)
    folder = Path(tempfile.mkdtemp(prefix="cd-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(agent_process.sys, "executable", str(idle))  # type: ignore[attr-defined]
    agent = AgentProcess(new_boot())
    yield agent
    monkeypatch.undo()
    agent.wait(0.0, hurried=lambda: False)
    shutil.rmtree(folder)


def break_call(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Let a function of a module fail."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    module, _, function = name.partition(".")
    monkeypatch.setattr(sys.modules[module], function, fail)


def open_files() -> set[str]:
    """The file descriptors of this process, with what they are."""
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        if not target.startswith("/proc/"):  # this folder itself
            found.add(f"{fd.name} {target}")
    return found


@pytest.mark.parametrize("call", STARTING)
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_an_agent_that_cannot_be_started_leaves_nothing_behind_and_does_not_reach_the_worker(
    agent: AgentProcess,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
    number: int,
) -> None:
    """Attacks: nothing of ours can stop the worker's own tasks."""
    # Given a call that fails as long as the test wants
    files, folders = open_files(), set(Path(tempfile.gettempdir()).iterdir())
    with monkeypatch.context() as broken:
        break_call(broken, call, OSError(number, os.strerror(number)))

        # When the worker starts the agent and checks it for minutes
        agent.start()
        attempts = 0
        for _ in range(1000):
            before = agent._deaths
            agent.keep_alive()
            attempts += agent._deaths - before
            clock.now += 0.25

    # Then nothing is left behind, one line says what to do, and the attempts become rare
    assert agent.pid is None
    assert open_files() <= files
    assert set(Path(tempfile.gettempdir()).iterdir()) == folders
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert line.startswith("node w1@test: starting the agent failed (")
    assert "restart the worker if" in line
    assert attempts < 20

    # And once the call works again, the agent starts
    clock.now += 31
    agent.keep_alive()
    assert agent.pid is not None


def test_an_agent_that_cannot_be_started_for_days_does_not_overflow_the_pause(
    agent: AgentProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    break_call(monkeypatch, "subprocess.Popen", OSError(errno.ENOENT, "replaced"))

    # When
    for _ in range(1200):
        agent.keep_alive()
        clock.now += 31

    # Then
    assert agent._deaths >= 1100


@pytest.mark.parametrize("call", RUNNING)
@pytest.mark.parametrize("number", ERRORS, ids=errno.errorcode.get)
def test_a_failing_call_while_an_agent_runs_or_dies_does_not_reach_the_worker(
    agent: AgentProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Attacks: nothing of ours can stop the worker's own tasks."""
    # Given an agent, and a call that fails
    agent.start()
    assert agent._process is not None
    process = agent._process
    with monkeypatch.context() as broken:
        break_call(broken, call, OSError(number, os.strerror(number)))

        # When it is checked, dies, and is checked again
        agent.keep_alive()
        assert agent.pid == process.pid
        process.kill()
        deadline = time.monotonic() + 10
        while agent.pid == process.pid and time.monotonic() < deadline:
            agent.keep_alive()
            clock.sleep(0.01)

        # Then another one is started
        clock.now += 31
        agent.keep_alive()
        assert agent.pid not in (None, process.pid)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOBUFS, errno.ECONNRESET, errno.EPIPE, errno.ENOMEM])
def test_a_socket_that_fails_does_not_reach_the_worker(agent: AgentProcess, number: int) -> None:
    # Given
    agent.start()

    class Broken:
        """A socket of which every call fails."""

        def __getattr__(self, name: str) -> Any:
            def fail(*args: Any) -> Any:
                raise OSError(number, os.strerror(number))

            return (lambda: None) if name == "close" else fail

    for name in ("_sock", "_lifeline"):
        getattr(agent, name).close()
        setattr(agent, name, Broken())

    # When, then
    agent.send(Campaign())
    agent.keep_alive()
    agent.drain(0.0)
    assert agent.wait(0.0, hurried=lambda: True) is False


def test_a_message_longer_than_a_pipe_does_not_block_the_worker(agent: AgentProcess) -> None:
    agent._boot.sys_path = ["x" * 1000] * 1000

    agent.start()  # an agent that does not read it

    assert agent.pid is not None


def test_the_folder_for_sockets_is_made_elsewhere_if_tmpdir_is_long_and_tmp_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    real = tempfile.mkdtemp

    def mkdtemp(*, prefix: str, **options: str) -> str:
        if options["dir"] == "/tmp":  # noqa: S108
            raise OSError(errno.EROFS, "Read-only file system")
        return real(prefix=prefix, **options)

    with monkeypatch.context() as broken:
        broken.setattr(tempfile, "mkdtemp", mkdtemp)

        # When
        found = Path(new_socket_folder())

    # Then
    assert str(found.parent) in ("/var/tmp", "/dev/shm")  # noqa: S108
    found.rmdir()


def test_a_folder_for_sockets_that_fits_nowhere_is_refused_with_the_folders_that_were_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 60)))
    break_call(monkeypatch, "tempfile.mkdtemp", OSError(errno.EROFS, "Read-only file system"))

    # When, then
    with pytest.raises(OSError, match=r"longer than 40 characters.*/tmp \(Read-only.*set TMPDIR"):
        new_socket_folder()
