"""A system without what the guarantees rest on is refused by name, and the worker runs on without daemons."""

import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from celery_daemons.forkserver import deadman
from celery_daemons.node import system
from tests.support.boots import new_boot

#: Seconds that a process may take to start or to end.
SOON = 30.0


def refuse(*_: Any) -> Any:
    """Answer as a kernel that does not know a system call."""
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_this_system_has_everything() -> None:
    assert system.missing(timers=True) is None


@pytest.mark.parametrize(("module", "call"), [(os, "pidfd_open"), (signal, "pidfd_send_signal")])
def test_a_kernel_without_pidfd_is_refused(monkeypatch: pytest.MonkeyPatch, module: Any, call: str) -> None:
    """Linux before 5.3, and containers whose seccomp profile is older than that: agents died again and again."""
    monkeypatch.setattr(module, call, refuse)

    assert "no pidfd ([Errno 38] Function not implemented)" in (system.missing(timers=True) or "")


def test_a_python_without_pidfd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")

    assert "no pidfd" in (system.missing(timers=True) or "")


def test_timers_are_found_where_they_are_in_a_library_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before glibc 2.34 the code fell back to relative timers in silence: a paused process outlived its lease."""
    real, asked = ctypes.CDLL, []

    class Without:
        """A C library without timers."""

    def load(name: str | None, **options: Any) -> Any:
        asked.append(name)
        return Without() if name is None else real(None, **options)

    monkeypatch.setattr(ctypes, "CDLL", load)

    assert hasattr(deadman.timer_library(), "timer_create")
    assert asked == [None, "librt.so.1"]
    assert system.missing(timers=True) is None


def test_a_c_library_without_timers_is_refused_if_hosts_must_end_with_the_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())

    assert "no timer_create" in (system.missing(timers=True) or "")
    assert system.missing(timers=False) is None


def test_a_kernel_that_refuses_the_timer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "create_timer", refuse)

    assert "no timer on CLOCK_BOOTTIME ([Errno 38]" in (system.missing(timers=True) or "")


def test_an_agent_on_such_a_system_says_so_once_and_waits_for_the_end_of_its_worker(tmp_path: Path) -> None:
    """Attacks invariant 1: without these calls two runs could overlap. And the worker must not start agents forever."""
    # Given an agent whose Python has no pidfd
    folder = tmp_path / "sockets"
    folder.mkdir()
    ours, theirs = socket.socketpair()
    lifeline, held = socket.socketpair()
    boot = new_boot(sys_path=sys.path, tempdir=str(folder))
    code = "import os, sys; del os.pidfd_open; from celery_daemons.node.__main__ import main; main()"
    with (
        ours,
        lifeline,
        subprocess.Popen(
            [sys.executable, "-c", code, "--fd", str(theirs.fileno()), "--lifeline", str(held.fileno()), boot.node],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno(), held.fileno()],
        ) as agent,
    ):
        theirs.close()
        held.close()
        assert agent.stdin is not None
        assert agent.stderr is not None
        agent.stdin.write(msgspec.msgpack.encode(boot))
        agent.stdin.close()

        # Then
        line = agent.stderr.readline().decode()
        assert "node w1@test: cannot run daemons: the system provides no pidfd" in line
        assert agent.poll() is None

        # When its worker is gone, then so is the agent
        ours.close()
        assert agent.wait(SOON) == 0
        assert not folder.exists()
