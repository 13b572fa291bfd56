"""The settings, launchers and records of the model's nodes."""

import random
from dataclasses import replace

from celery_daemons.domain.names import DaemonName, Incarnation, LauncherName, NodeName
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import NodeStatus
from celery_daemons.settings import Settings
from tests.unit.protocol.world import LONG_TTL_MS, TTL_MS

TAIL, ALONE = LauncherName("tail"), LauncherName("alone")
#: The launcher of each daemon of the model.
LAUNCHER_OF = {DaemonName("x"): TAIL, DaemonName("y"): ALONE}
#: A failed run restarts at once, the third in a row makes the node release the daemon; a daemon that does not stop is
#: killed after a second.
LAUNCHERS = {
    TAIL: LauncherOptions(stop_grace=1.0, max_restarts=2),
    ALONE: LauncherOptions(stop_grace=1.0, max_restarts=2, isolation="process", restart="transient"),
}
ARGUMENTS = "[[], {}]"
SETTINGS = Settings(redis_url="redis://double", namespace="model", lease_ttl=TTL_MS / 1000)
#: A node with a lease of twice the length, and one with the usual lease that knows of the longer one.
LONG = replace(SETTINGS, lease_ttl=LONG_TTL_MS / 1000)
WARNED = replace(SETTINGS, lease_ttl_max=LONG_TTL_MS / 1000)


class NoJitter(random.Random):
    """Back-offs without a wait: the model decides when a daemon is claimed again."""

    def uniform(self, a: float, b: float) -> float:
        """Return the lower end."""
        return a


def row_of(node: NodeName, previous: Incarnation | None) -> NodeRow:
    """Return the record under which an agent registers; ``previous`` is the incarnation that it replaces."""
    return NodeRow(
        incarnation=previous or Incarnation(""),
        status=NodeStatus.UP,
        queue=node,
        spawn_queue=f"{node}.spawn",
        host="model",
        pid=1,
        weight=1.0,
        labels="",
        launchers=",".join(sorted(LAUNCHERS)),
    )
