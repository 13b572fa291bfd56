"""What servers and workers of the tests have in common: a process with a log file that a ``with`` block ends."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ManagedProcess(ABC):
    """A long-running process whose output goes to a file. It can be started again after its end."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start the process, for the first time or again."""

    @abstractmethod
    def wait_ready(self) -> None:
        """Wait until the process is ready."""

    @abstractmethod
    def close(self) -> None:
        """End the process and remove its temporary files."""

    @property
    def running(self) -> bool:
        """Whether the process exists, running or paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the process, running or ended."""
        return self._started().pid

    @property
    def output(self) -> str:
        """Everything that the process and its children have written, over all starts."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _launch(self, command: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
        assert not self.running, f"{self!r} was started already"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **options
            )
        return self._process

    def _started(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self!r} was never started"
        return self._process
