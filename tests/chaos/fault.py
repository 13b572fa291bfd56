"""A fault: its name, when it happened, which daemons it hit, and how it is repaired."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import psutil

from tests.chaos.chaos_cluster import ChaosCluster
from tests.chaos.members import Member, Node

#: The longest time that a process is frozen or cut off, in seconds: two of the shortest leases.
LONGEST_SILENCE = 4.0


@dataclass(slots=True)
class Fault:
    """One fault as it happened; ``hit`` are the daemons that have to start again."""

    kind: str
    at: float
    hit: list[str] = field(default_factory=list)
    mend: Callable[[], object] | None = None
    mend_at: float = 0.0


#: Causes a fault at a node; ``None`` if that is not possible now. Every random decision uses the given generator.
Cause: TypeAlias = Callable[[ChaosCluster, Node, random.Random], Fault | None]


def lasting(kind: str, member: Member, seconds: float, mend: Callable[[], object]) -> Fault:
    """Return a fault of a member that is repaired after so many seconds; until then, the member gets no other fault."""
    now = time.monotonic()
    member.busy_until = now + seconds + 0.5
    return Fault(kind, now, [], mend, now + seconds)


def send_signal(process: psutil.Process | None, number: int) -> bool:
    """Send a signal; return False if there is no such process."""
    if process is None:
        return False
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True
