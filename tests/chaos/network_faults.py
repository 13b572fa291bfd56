"""Networks that are reset, lose packets or are slow."""

import random
import time

from tests.chaos.chaos_cluster import ChaosCluster
from tests.chaos.fault import LONGEST_SILENCE, Cause, Fault, lasting
from tests.chaos.members import Node
from tests.support.proxy import Which

_WHICH: tuple[Which, ...] = ("up", "down", "both")


def cut(_: ChaosCluster, node: Node, __: random.Random) -> Fault:
    """All of a node's connections reset."""
    node.proxy.cut()
    return Fault("connections reset", time.monotonic())


def hole(_: ChaosCluster, node: Node, rng: random.Random) -> Fault:
    """A node's packets vanish, one way or both."""
    which = rng.choice(_WHICH)
    node.proxy.hole(which)
    return lasting(f"network hole ({which})", node, rng.uniform(0.2, LONGEST_SILENCE), node.proxy.heal)


def delay(_: ChaosCluster, node: Node, rng: random.Random) -> Fault:
    """A node's packets take 200 ms, one way or both."""
    node.proxy.delay(0.2, rng.choice(_WHICH))
    return lasting("network delay", node, rng.uniform(1, 4), node.proxy.heal)


#: What happens how often.
WEIGHTS: dict[Cause, int] = {cut: 10, hole: 6, delay: 6}
