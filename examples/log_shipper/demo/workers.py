"""Real Celery workers, each with all its processes in hand: to be killed, paused, drained, and none left behind."""

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

#: Seconds that the kernel gets to end what was killed, and a worker to shut down.
_KILL_LIMIT: Final = 5.0
STOP_LIMIT: Final = 20.0


class Worker:
    """The node ``<name>@demo``: a worker with one pool process, and everything that it has started in all its lives."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self.node = f"{name}@demo"
        self.log = folder / f"{name}.log"
        # A working folder of its own, which all its processes inherit: by that, orphans are known as well.
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
            # A session of its own: Ctrl-C in the terminal is for the demo, which then ends its workers itself.
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
        """The main process's exit status; nothing while it runs."""
        return self._process.poll() if self._process is not None else None

    def kill(self) -> None:
        """``kill -9`` of the main process, and of nothing else."""
        self.processes()
        assert self._process is not None
        self._process.kill()
        self._process.wait(_KILL_LIMIT)

    def terminate(self) -> None:
        """SIGTERM: Celery's warm shutdown, with which the node drains."""
        self.processes()
        assert self._process is not None
        self._process.terminate()

    def pause(self) -> None:
        """SIGSTOP for the whole tree, until nobody is left who could start another process."""
        paused: set[psutil.Process] = set()
        while new := set(self.processes()) - paused:
            _each(new, psutil.Process.suspend)
            paused |= new

    def resume(self) -> None:
        """SIGCONT for the whole tree."""
        _each(self.processes(), psutil.Process.resume)

    def end(self) -> None:
        """Kill whatever is left of it, by pid."""
        self.pause()
        _each(self.processes(), psutil.Process.kill)
        if self._process is not None:
            self._process.wait(_KILL_LIMIT)
        deadline = time.monotonic() + _KILL_LIMIT
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.01)

    def processes(self) -> list[psutil.Process]:
        """All that live, orphans included."""
        for process in list(self._known):
            with suppress(psutil.NoSuchProcess):
                self._known.update(process.children(recursive=True))
        self._known.update(process for process in psutil.process_iter() if self._owns(process))
        return [process for process in self._known if is_alive(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return Path(process.cwd()) == self._folder
        except (psutil.Error, OSError):
            # Gone, or not ours to look at: then it is not ours.
            return False


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is more than an entry that its parent has not collected yet."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def living(pids: Collection[int]) -> list[int]:
    """Those of the processes that live."""
    found = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            found += [pid] if is_alive(psutil.Process(pid)) else []
    return found


def _each(processes: Iterable[psutil.Process], signal: Callable[[psutil.Process], Any]) -> None:
    for process in processes:
        # psutil makes sure that the pid is still the same process's.
        with suppress(psutil.NoSuchProcess):
            signal(process)
