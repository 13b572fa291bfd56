"""Real Celery workers on the project of a test, and faults of their processes."""

import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from types import TracebackType

import psutil

from tests.support.managed_process import ManagedProcess
from tests.support.processes import MARK, Family
from tests.support.projects import Project
from tests.support.waiting import wait_until

#: A worker is ready in 2 s, a second of which it waits for its neighbours; a loaded build machine takes longer.
READY_LIMIT = 60.0
STOP_LIMIT = 60.0
#: After SIGKILL the kernel needs moments.
KILL_LIMIT = 10.0

#: What a worker logs when it takes tasks.
READY = r"^\[.*\] \S+@\S+ ready\.$"
#: How many lines of a log go into a failure's message.
TAIL = 200


class CeleryProcess(ManagedProcess):
    """A long-running ``celery -A proj …`` and everything that it starts, in a session of its own.

    ``ready`` is a regular expression for the line by which it says that it is. As a context manager, the process is
    started and ready inside the block; nothing of it is left behind after.
    """

    def __init__(
        self,
        project: Project,
        name: str,
        arguments: Sequence[str],
        *,
        ready: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.project = project
        self.name = name
        mark = uuid.uuid4().hex
        # A folder of its own: by it, processes are recognised whose titles have overwritten their environment.
        self.folder = project.folder / f"{name}-{mark[:8]}"
        self.folder.mkdir()
        # Killed processes cannot remove their temporary files. Its path is short: sockets may be made in it.
        self._temporary = tempfile.mkdtemp(prefix="cd-")
        self._ready = re.compile(ready, re.MULTILINE)
        super().__init__(self.folder / "output.log")
        self._log_offset = 0
        self._family = Family(mark, self.folder)
        self._env = project.environment(**{MARK: mark, "TMPDIR": self._temporary, **(env or {})})
        self._command = [sys.executable, "-m", "celery", "-A", project.module, *arguments]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}, {'running' if self.running else 'not running'}>"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(self.report)
        self.close()

    @property
    def report(self) -> str:
        """The end of the output under a title, for the message of a failure."""
        return "\n".join([f"output of {self!r}:", *self.output.splitlines()[-TAIL:]])

    def start(self) -> None:
        """Start the process, for the first time or again; :meth:`wait_ready` returns when it is at work."""
        self._log_offset = self._log.stat().st_size if self._log.exists() else 0
        process = self._launch(self._command, cwd=self.folder, env=self._env, start_new_session=True)
        self._family.add(process.pid)

    def wait_ready(self, within: float = READY_LIMIT) -> None:
        """Wait until the process has said that it is ready, since its last start."""

        def ready() -> bool:
            assert self.running, f"{self!r} exited with {self._started().poll()} before it was ready"
            return self._ready.search(self._since_start()) is not None

        try:
            wait_until(ready, within=within, because=f"{self!r} was just started")
        except AssertionError as error:
            error.add_note(self.report)
            raise
        self._family.members()

    def tree(self) -> list[psutil.Process]:
        """Return its living processes, the main process first, orphans included."""
        return self._family.members()

    def kill(self) -> None:
        """Kill the main process and nothing else; what it leaves behind lives on."""
        self._family.members()
        process = self._started()
        process.kill()
        process.wait(KILL_LIMIT)

    def kill_tree(self) -> None:
        """Kill everything at once, as the loss of a machine would."""
        self._family.kill()
        self._started().wait(KILL_LIMIT)

    def pause_tree(self) -> None:
        """Stop every process in its tracks, as a paused virtual machine would be."""
        self._family.pause()

    def resume_tree(self) -> None:
        """Let everything go on."""
        self._family.resume()

    def terminate(self) -> None:
        """Ask for a warm shutdown and return at once."""
        self._family.members()
        self._started().terminate()

    def signal(self, number: int) -> None:
        """Send a signal to the main process and return at once."""
        self._family.members()
        self._started().send_signal(number)

    def stop(self, timeout: float = STOP_LIMIT) -> int:
        """Ask for a warm shutdown and return the exit status."""
        self.terminate()
        try:
            return self._started().wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self!r} ignored SIGTERM for {timeout:g} s\n{self.report}") from None

    def close(self) -> None:
        """Kill whatever is left of it."""
        if self._process is not None:
            self.kill_tree()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def _since_start(self) -> str:
        return self._log.read_bytes()[self._log_offset :].decode(errors="replace")


class Worker(CeleryProcess):
    """A ``celery -A proj worker``: the node ``<name>@test`` and its processes."""

    def __init__(
        self,
        project: Project,
        name: str = "w1",
        *,
        pool: str = "prefork",
        concurrency: int = 1,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.node = f"{name}@test"
        arguments = ["worker", "--hostname", self.node, "--pool", pool, "--concurrency", str(concurrency)]
        super().__init__(project, name, [*arguments, "--loglevel", "INFO", *options], ready=READY, env=env)
