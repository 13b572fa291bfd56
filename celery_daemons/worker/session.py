"""Kill every process of a session: the agent leads one, and its hosts lead process groups inside it."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Searches for members. A process that forks while it is killed leaves a child for the next search.
_ROUNDS: Final = 5


def kill_session(leader: int) -> None:
    """Kill the process group of ``leader`` and the processes of the session that ``leader`` has started.

    Call while the leader lives or is not reaped: its number could belong to another session later.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for _ in range(_ROUNDS):
        members = [pid for pid in _members(leader) if pid != leader]
        if not members:
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _members(session: int) -> Iterator[int]:
    """Yield the living processes of a session; none on a system without ``/proc``."""
    with contextlib.suppress(OSError):
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                # "pid (name) state parent group session …": the name may hold spaces and brackets.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX" and int(fields[3]) == session:
                    yield int(folder.name)
