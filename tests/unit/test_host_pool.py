"""The host processes of a node, where the system refuses threads, and where the agent itself has a defect."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from celery_daemons.forkserver import child
from celery_daemons.forkserver.spawner import Child, Spawner
from celery_daemons.node.host_pool import HostDied, HostEvent, HostPool
from celery_daemons.node.lifetime import Lifetime
from celery_daemons.node.log_files import LogFiles
from celery_daemons.node.supervision.commands import HostId
from celery_daemons.settings import Settings
from celery_daemons.wire.messages import PRELOAD_VARIABLE, Boot

HOST = HostId(1)


class SleepingProcess:
    """What multiprocessing returns for a process; the sentinel is readable once the process is dead."""

    def __init__(self) -> None:
        self.sentinel, theirs = os.pipe()
        self._popen = subprocess.Popen(["sleep", "60"], pass_fds=(theirs,), start_new_session=True)
        os.close(theirs)
        self.pid = self._popen.pid

    @property
    def exitcode(self) -> int | None:
        """Return the exit code, negative for a signal."""
        return self._popen.wait(timeout=10)

    def close(self) -> None:
        """Close the sentinel."""
        os.close(self.sentinel)


class Scene:
    """A pool of hosts without an agent around it."""

    def __init__(self, folder: Path, fork: Callable[..., Child]) -> None:
        settings = Settings(redis_url="", lease_ttl=5.0)
        boot = Boot(
            node="w1@here",
            app="proj",
            settings=settings,
            sys_path=[],
            queue="",
            spawn_queue="",
            host="here",
            worker_pid=os.getpid(),
            launchers={},
        )
        lease: Any = SimpleNamespace(until=0.0)
        self.ours, lifeline = socket.socketpair()
        self.lifetime = Lifetime(node="w1@here", drain_timeout=1.0)
        spawner = Spawner(boot, lifeline)
        spawner._start = fork  # type: ignore[method-assign]
        self.pool = HostPool(
            boot=boot, spawner=spawner, lease=lease, files=LogFiles(str(folder)), lifetime=self.lifetime
        )
        self.events: asyncio.Queue[HostEvent] = asyncio.Queue()

    def open(self) -> None:
        """Ask for a host."""
        self.pool.open(HOST, isolated=False, handle=lambda _, event: self.events.put_nowait(event))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for log lines; the test restores the variable for the fork server at its end."""
    monkeypatch.setenv(PRELOAD_VARIABLE, "")
    return tmp_path


def test_a_host_is_forked_and_its_death_is_reported_where_no_thread_can_be_started(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks invariant 2: a fork or a death that waits for a thread would be lost, and its daemons with it."""

    def fork(_role: str, _boot: object) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(child.BOOTED)
        return Child(SleepingProcess(), ours)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def fork_and_kill() -> HostEvent:
        scene = Scene(folder, fork)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        scene.open()
        while HOST not in scene.pool.pids():  # noqa: ASYNC110 - a fork is no event of the pool
            await asyncio.sleep(0.01)
        scene.pool[HOST].kill()
        async with asyncio.timeout(10):
            event = await scene.events.get()
            await scene.pool.wait_dead()
        assert scene.pool.all_dead
        return event

    event = asyncio.run(fork_and_kill())

    assert isinstance(event, HostDied)
    assert signal.SIGKILL.name in event.end.cause


def test_an_agent_with_a_defect_in_the_care_of_a_host_leaves_and_counts_the_host_as_alive(folder: Path) -> None:
    """Attacks invariant 9: a host that is not watched may live, and its daemon must not start elsewhere."""

    def fork(_role: str, _boot: object) -> Child:
        raise ZeroDivisionError

    async def open_host() -> Scene:
        scene = Scene(folder, fork)
        scene.open()
        async with asyncio.timeout(10):
            await scene.lifetime.wait()
        return scene

    scene = asyncio.run(open_host())

    assert scene.lifetime.is_leaving
    assert not scene.pool.all_dead
