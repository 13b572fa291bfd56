"""Run real Celery workers and control all their processes: kill, pause, drain, and leave none behind."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[3]

#: Seconds for the kernel to end a killed process, and for a worker to shut down.
_KILL_LIMIT: Final = 5.0
STOP_LIMIT: Final = 20.0


class Worker:
    """The node ``<name>@demo``: a worker with one pool process, and every process that it has ever started."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.node = f"{name}@demo"
        self.log = folder / f"{name}.log"
        # All processes of the worker inherit this working folder, which identifies orphans as well.
        self._folder = (folder / name).resolve()
        self._folder.mkdir()
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self._environment = {**os.environ, **environment, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[psutil.Process] = set()

    def start(self) -> None:
        """Start the worker, for the first time or again."""
        command = [sys.executable, "-m", "celery", "-A", "examples.log_shipper.proj", "worker", "--hostname", self.node]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal goes to the demo, which then stops its workers.
            self._process = subprocess.Popen(
                [*command, "--concurrency", "1", "--loglevel", "INFO"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._known.add(psutil.Process(self._process.pid))

    @property
    def exit_status(self) -> int | None:
        """Return the exit status of the main process; ``None`` while it runs."""
        return self._process.poll() if self._process is not None else None

    def kill(self) -> None:
        """Kill the main process, and nothing else."""
        self.processes()
        assert self._process is not None
        self._process.kill()
        self._process.wait(_KILL_LIMIT)

    def terminate(self) -> None:
        """Send SIGTERM: Celery shuts down warm, and the node drains."""
        self.processes()
        assert self._process is not None
        self._process.terminate()

    def pause(self) -> None:
        """Stop the whole tree, until no process is left that could start another one."""
        paused: set[psutil.Process] = set()
        while new := set(self.processes()) - paused:
            _each(new, psutil.Process.suspend)
            paused |= new

    def resume(self) -> None:
        """Continue the whole tree."""
        _each(self.processes(), psutil.Process.resume)

    def end(self) -> None:
        """Kill all remaining processes of the worker, by pid."""
        self.pause()
        _each(self.processes(), psutil.Process.kill)
        if self._process is not None:
            self._process.wait(_KILL_LIMIT)
        deadline = time.monotonic() + _KILL_LIMIT
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        """Return all live processes, orphans included."""
        for process in list(self._known):
            with suppress(psutil.NoSuchProcess):
                self._known.update(process.children(recursive=True))
        self._known.update(process for process in psutil.process_iter() if self._owns(process))
        return [process for process in self._known if is_alive(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return Path(process.cwd()) == self._folder
        except (psutil.Error, OSError):
            # The process has ended, or belongs to another user.
            return False


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def living(pids: Collection[int]) -> list[int]:
    """Return the pids of processes that run."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += [pid] if is_alive(psutil.Process(pid)) else []
    return found


def _each(processes: Iterable[psutil.Process], signal: Callable[[psutil.Process], Any]) -> None:
    for process in processes:
        # psutil checks that the pid still belongs to the same process.
        with suppress(psutil.NoSuchProcess):
            signal(process)
