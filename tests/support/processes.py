"""Families of processes: find all members of one, pause or kill all of them, and check that none is left."""

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.support.waiting import wait_until

#: The variable that every process of a family inherits; its value is the family's own.
MARK = "CELERY_DAEMONS_TEST"

#: After SIGKILL the kernel needs moments; only a process stuck in a device would take this long.
GONE_LIMIT = 10.0
#: Seconds after which a process has its own environment and working folder, however busy the machine is.
SETTLED_AFTER = 5.0
#: A family that still grows after so many rounds starts processes faster than they can be stopped.
ROUNDS = 50


class Family:
    """A process and all its descendants, including those whose parents have died.

    Descendants are remembered once seen, so the process of a daemon is found after its agent has died. A descendant
    that was never seen is found by the mark in its environment or, if a process title has overwritten that, by its
    working folder.
    """

    def __init__(self, mark: str, folder: Path) -> None:
        self._mark = mark
        self._folder = str(folder.resolve())
        self._seen: set[psutil.Process] = set()
        #: Processes that do not belong to the family and never will: only members start members. Other test processes
        #: run on the same machine, and to read the environment of all their processes at each call is slow.
        self._foreign: set[psutil.Process] = set()

    def add(self, pid: int) -> None:
        """Make the process with this ``pid`` the head of the family."""
        self._seen.add(psutil.Process(pid))

    def members(self) -> list[psutil.Process]:
        """Return all living members, oldest first."""
        for process in list(self._seen):
            try:
                self._seen.update(process.children(recursive=True))
            except psutil.NoSuchProcess:
                # Its children are found below.
                continue
        self._seen.update(process for process in psutil.process_iter() if self._claims(process))
        living = [process for process in self._seen if alive(process)]
        return sorted(living, key=lambda process: (process.create_time(), process.pid))

    def pause(self) -> None:
        """Stop every member, repeatedly, until no running member is left that could start another one."""
        stopped: set[psutil.Process] = set()
        for _ in range(ROUNDS):
            new = [process for process in self.members() if process not in stopped]
            if not new:
                wait_until(
                    lambda: all(halted(process) for process in stopped), within=GONE_LIMIT, because="SIGSTOP was sent"
                )
                return
            for process in new:
                _signal(process, "suspend")
            stopped.update(new)
        raise AssertionError(f"a family still grew after {ROUNDS} rounds: {self.members()}")

    def resume(self) -> None:
        """Let every member go on, the youngest first, so that no parent finds a child still stopped."""
        for process in reversed(self.members()):
            _signal(process, "resume")

    def kill(self) -> None:
        """Kill every member at once, as a power cut would, and wait until all have ended."""
        self.pause()
        members = self.members()
        for process in members:
            _signal(process, "kill")
        wait_gone(members)

    def _claims(self, process: psutil.Process) -> bool:
        if process in self._seen:
            return True
        if process in self._foreign:
            return False
        try:
            ours = process.cwd() == self._folder or process.environ().get(MARK) == self._mark
        except (psutil.Error, OSError):
            # The process has ended or belongs to another user. It may also be about to replace its program: ask again.
            return False
        # A child of this process may not have replaced its program yet: it then still has this process's environment.
        if not ours and not self._is_young(process):
            self._foreign.add(process)
        return ours

    def _is_young(self, process: psutil.Process) -> bool:
        return time.time() - float(process.create_time()) < SETTLED_AFTER


def alive(process: psutil.Process) -> bool:
    """Whether the process still exists as more than an entry that its parent has not collected."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def halted(process: psutil.Process) -> bool:
    """Whether the process runs no instruction: stopped, or gone."""
    try:
        return bool(process.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})
    except psutil.NoSuchProcess:
        return True


def wait_gone(processes: Iterable[psutil.Process], within: float = GONE_LIMIT) -> None:
    """Wait until none of the processes is alive."""
    wanted = list(processes)
    deadline = time.monotonic() + within
    while left := [process for process in wanted if alive(process)]:
        assert time.monotonic() < deadline, f"still alive after {within:g} s: {left}"
        time.sleep(0.01)


def _signal(process: psutil.Process, method: str) -> None:
    """Send what ``method`` of the process sends, unless it has gone; psutil checks that the pid is still the same."""
    try:
        getattr(process, method)()
    except psutil.NoSuchProcess:
        return
