"""What a person should do next, from what the cluster looks like."""

from collections.abc import Iterator

from celery_daemons.client.lookups import ClusterStatus


def hints(status: ClusterStatus, prog: str) -> Iterator[str]:
    """What is amiss and what to do about it; ``prog`` is the command as it was called, up to ``daemons``."""
    yield from basic_hints(
        leads=status.leader is not None, nodes=status.nodes["up"] + status.nodes["draining"], prog=prog
    )
    if status.nodes["draining"] and not status.nodes["up"]:
        yield f"every node is draining: `{prog} uncordon NODE` lets one take daemons again"
    if status.nodes["lost"]:
        yield f"the lease of {status.nodes['lost']} of the nodes has run out; the monitor sweeps what they left"
    for wrong in ("failed", "unplaceable"):
        if status.daemons[wrong]:
            yield f"`{prog} list --status {wrong}` tells why"
    if status.leader is not None and status.daemons["pending"] > status.daemons["running"]:
        yield "the monitor places what is pending; it gives a new address book, or another Redis, one lease first"
    if status.rebalance_paused:
        yield f"rebalancing is paused: `{prog} rebalance --resume` lets it go on"
    if any(scan.error for scan in status.scanners.values()):
        yield f"once the scanner is mended, `{prog} rescan` runs it at once"


def basic_hints(*, leads: bool, nodes: int, prog: str) -> Iterator[str]:
    """Without which nothing runs: a node, and a leader."""
    worker = prog.removesuffix(" daemons") + " worker"
    if not nodes:
        yield f"no node is up: start one with `{worker}`"
    elif not leads:
        yield (
            "nobody leads: workers with daemons_monitor run for election within a lease, and log why not if they fail; "
            f"`{prog} monitor` is a candidate without a worker"
        )
