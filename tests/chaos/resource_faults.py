"""Nodes that run short of processes, disk or descriptors, and lose a process meanwhile."""

import contextlib
import random
import resource
import signal
from itertools import count
from pathlib import Path

import psutil

from tests.chaos.chaos_cluster import ChaosCluster
from tests.chaos.fault import Cause, Fault, lasting, send_signal
from tests.chaos.members import Node

#: The longest time that a shortage lasts, in seconds: longer than a node waits before it releases its daemons.
_LONGEST = 8.0


def refuse_forks(_: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """Every fork and every new thread of a node fails, while the node needs new processes."""
    limit = node.process_limit
    if limit is None:
        return None
    limit.refuse()
    _kill_one(node, rng)
    return lasting("forks refused", node, rng.uniform(0.5, _LONGEST), limit.allow)


def fill_disk(_: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """No byte is left for a node's log and temporary files."""
    disk = node.disk
    if disk is None:
        return None
    disk.fill()
    _kill_one(node, rng)
    return lasting("disk full", node, rng.uniform(0.5, _LONGEST), disk.free)


def exhaust_descriptors(_: ChaosCluster, node: Node, rng: random.Random) -> Fault | None:
    """One process of a node can open nothing."""
    processes = [psutil.Process(node.process.pid), node.agent(rng)]
    processes += [node.role(role, rng) for role in ("forkserver", "monitor", "host")]
    # The number of draws must not depend on what runs at this moment.
    number, seconds = rng.randrange(len(processes)), rng.uniform(0.5, _LONGEST)
    process = processes[number]
    if process is None:
        return None
    try:
        before = process.rlimit(resource.RLIMIT_NOFILE)
        process.rlimit(resource.RLIMIT_NOFILE, (_first_free(process), before[1]))
    except (psutil.Error, OSError):
        return None
    _kill_one(node, rng)

    def mend() -> None:
        # Processes that it has started meanwhile have inherited the limit.
        for one in node.process.tree():
            with contextlib.suppress(psutil.Error, OSError):
                if one.rlimit(resource.RLIMIT_NOFILE)[0] < before[0]:
                    one.rlimit(resource.RLIMIT_NOFILE, before)

    return lasting("descriptors exhausted", node, seconds, mend)


def _first_free(process: psutil.Process) -> int:
    used = {int(entry.name) for entry in Path(f"/proc/{process.pid}/fd").iterdir()}
    return next(number for number in count() if number not in used)


def _kill_one(node: Node, rng: random.Random) -> None:
    """Kill a process that the node will try to replace, or none."""
    role = rng.choice(("host", "forkserver", "agent", "monitor", ""))
    process = node.agent(rng) if role == "agent" else node.role(role, rng) if role else None
    send_signal(process, signal.SIGKILL)


#: What happens how often.
WEIGHTS: dict[Cause, int] = {refuse_forks: 4, fill_disk: 3, exhaust_descriptors: 5}
