"""Limit the processes of a node by a control group, and its disk by a small file system.

Both need privileges that a container or an ordinary user may lack. Faults of a kind that is not possible are not
caused.
"""

import contextlib
import errno
import os
import shutil
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self

#: Bytes of a node's file system: the worker's log of half an hour fits.
_SIZE: Final = 96 * 2**20
_PIDS_V1: Final = Path("/sys/fs/cgroup/pids")
_UNIFIED: Final = Path("/sys/fs/cgroup")
#: After their death, processes stay in their group until they are reaped.
_EMPTY_LIMIT: Final = 10.0


class Disk:
    """The file system that holds a worker's log and temporary files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"
        self.temporary = folder / "tmp"
        self.log = folder / "worker.log"

    @classmethod
    def mounted(cls, folder: Path, stack: ExitStack) -> Self | None:
        """Return a new file system, which the stack unmounts; ``None`` if this process may not mount any."""
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "chaos", str(folder)]
        try:
            if subprocess.run(command, capture_output=True, check=False).returncode != 0:
                return None
        except FileNotFoundError:
            return None
        disk = cls(folder)
        stack.callback(disk.close)
        return disk

    def empty(self) -> None:
        """Remove temporary files of the workers before."""
        self.free()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()

    def fill(self) -> None:
        """Fill the file system to its last byte."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**16))
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0")

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount the file system, and keep the log where it was mounted."""
        with contextlib.suppress(OSError):
            shutil.copy(self.log, self._folder.with_suffix(".log"))
        subprocess.run(["umount", "--lazy", self._folder], capture_output=True, check=False)


class ProcessLimit:
    """The limit of processes and threads of one node, as a container has it."""

    def __init__(self, group: Path) -> None:
        self._group = group

    @classmethod
    def created(cls, name: str, stack: ExitStack) -> Self | None:
        """Return a new group, which the stack removes; ``None`` if this process may not create any."""
        with contextlib.suppress(OSError):
            if (_PIDS_V1 / "cgroup.procs").exists():
                parent = _PIDS_V1
            elif "pids" in (_UNIFIED / "cgroup.subtree_control").read_text().split():
                parent = _UNIFIED
            else:
                return None
            group = parent / f"chaos-{os.getpid()}-{name}"
            group.mkdir()
            limit = cls(group)
            stack.callback(limit.close)
            return limit
        return None

    def add(self, pid: int) -> None:
        """Put a process into the group, and with it everything that it starts from now on."""
        (self._group / "cgroup.procs").write_text(str(pid))

    def refuse(self) -> None:
        """Let every fork and every new thread fail."""
        (self._group / "pids.max").write_text("0")

    def allow(self) -> None:
        """Let forks succeed again."""
        (self._group / "pids.max").write_text("max")

    def close(self) -> None:
        """Remove the group, once its processes are reaped."""
        deadline = time.monotonic() + _EMPTY_LIMIT
        while True:
            try:
                self._group.rmdir()
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return
