"""Suggest what a person should do next, given the state of the cluster."""

from collections.abc import Iterator
from typing import Final

from celery_daemons.cli.render import plural
from celery_daemons.client.lookups import ClusterStatus

#: Launchers that a hint names.
_LAUNCHERS_SHOWN: Final = 3


def hints(status: ClusterStatus, prog: str) -> Iterator[str]:
    """Yield each problem of the cluster with a remedy; ``prog`` is the command line up to ``daemons``."""
    yield from basic_hints(
        has_leader=status.leader is not None, nodes=status.nodes["up"] + status.nodes["draining"], prog=prog
    )
    if status.nodes["draining"] and not status.nodes["up"]:
        yield f"all nodes are draining: `{prog} uncordon NODE` lets a node take daemons again"
    if lost := status.nodes["lost"]:
        have, their = ("has", "its") if lost == 1 else ("have", "their")
        yield f"{plural(lost, 'node')} {have} lost {their} lease; {their} daemons are being reassigned"
    for problem in ("failed", "unplaceable"):
        if count := status.daemons[problem]:
            is_are = "is" if count == 1 else "are"
            launchers = _by_launcher(status, problem)
            yield f"{plural(count, 'daemon')} {is_are} {problem}{launchers}: `{prog} list --status {problem}` shows why"
    if status.leader is not None and status.daemons["pending"] > status.daemons["running"]:
        yield (
            "pending daemons will be placed soon; "
            "after a new or changed Redis the monitor waits one lease (daemons_lease_ttl)"
        )
    if status.rebalance_paused:
        yield f"rebalancing is paused: `{prog} rebalance --resume` resumes it"
    if any(scan.error for scan in status.scanners.values()):
        yield f"after fixing the scanner, run it at once with `{prog} rescan`"


def _by_launcher(status: ClusterStatus, problem: str) -> str:
    """Return how many daemons of which launchers are in a status, in parentheses."""
    numbers = [f"{name} {count}" for name, by_status in status.launchers.items() if (count := by_status[problem])]
    more = ["…"] if len(numbers) > _LAUNCHERS_SHOWN else []
    return f" ({', '.join(numbers[:_LAUNCHERS_SHOWN] + more)})" if numbers else ""


def basic_hints(*, has_leader: bool, nodes: int, prog: str) -> Iterator[str]:
    """Yield what is missing for any daemon to run: a node, or a leader."""
    worker = prog.removesuffix(" daemons") + " worker"
    if not nodes:
        yield f"no node is up: start one with `{worker}`"
    elif not has_leader:
        yield (
            "no monitor is elected: workers with daemons_monitor run for election within a lease and log why if they "
            f"fail; `{prog} monitor` runs a candidate without a worker"
        )
