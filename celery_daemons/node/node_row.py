"""What a node says about itself when it joins, and how long it waits for Redis."""

from typing import Final

from celery_daemons.domain.names import Incarnation
from celery_daemons.domain.records import NodeRow, needs_text
from celery_daemons.domain.states import NodeStatus
from celery_daemons.settings import Settings
from celery_daemons.wire.messages import Boot

#: The least seconds for one command, however short the lease.
_SHORTEST_TIMEOUT: Final = 0.2


def row_of(boot: Boot) -> NodeRow:
    """Return the node's record, with the incarnation of the previous agent if that agent is known to be dead."""
    settings = boot.settings
    return NodeRow(
        incarnation=Incarnation(boot.previous or ""),
        status=NodeStatus.UP,
        queue=boot.queue,
        spawn_queue=boot.spawn_queue,
        host=boot.host,
        pid=boot.worker_pid,
        weight=settings.node_weight,
        labels=",".join(settings.node_labels),
        launchers=",".join(sorted(boot.launchers)),
        candidate=settings.monitor,
        scanners=",".join(boot.scanners),
        needs=needs_text({name: (options.labels, options.weight) for name, options in boot.launchers.items()}),
    )


def command_timeout(settings: Settings) -> float:
    """Return the seconds for a command: two attempts fit into what a late heartbeat leaves of the lease."""
    left = settings.lease_ttl - settings.lease_margin - settings.heartbeat_interval
    return max(_SHORTEST_TIMEOUT, left / 2)
