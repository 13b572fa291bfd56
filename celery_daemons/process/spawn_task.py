"""The spawn task: what the monitor sends to a node's spawn queue, and the queues of a node."""

import re
from typing import Any, Final

from kombu.entity import Exchange, Queue

TASK: Final = "celery_daemons.spawn"
#: Bump when the meaning of the payload changes; a node rejects what it does not know and catches up by heartbeat.
VERSION: Final = 1
#: Seconds after which a broker that can do so drops a spawn queue that nobody consumes.
_EXPIRES: Final = 3600
#: What names of nodes and namespaces may have, but those of queues and exchanges not with every broker.
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9._-]")


def task_queue_name(namespace: str, node: str) -> str:
    """The node's own task queue."""
    return _FOREIGN.sub(_escaped, f"{namespace}.{node}")


def spawn_queue_name(namespace: str, node: str) -> str:
    """The queue that its spawn tasks come through."""
    return f"{task_queue_name(namespace, node)}.spawn"


def _escaped(sign: re.Match[str]) -> str:
    return "_at_" if sign[0] == "@" else f"_{ord(sign[0]):02x}_"


def spawn_queue(name: str) -> Queue:
    """The queue as both ends declare it."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name, durable=True, expires=_EXPIRES)


def payload(
    *,
    node: str,
    incarnation: str,
    epoch: int,
    generation: int,
    assigned: list[tuple[str, str]],
    recalled: list[tuple[str, str]],
    campaign: bool = False,
) -> dict[str, Any]:
    """The keyword arguments of a spawn task; ``(name, token)`` each.

    One with ``campaign`` spawns nothing: nobody leads any more, and the node may run for election at once.
    """
    return {
        "version": VERSION,
        "node": node,
        "incarnation": incarnation,
        "epoch": epoch,
        "generation": generation,
        "assigned": assigned,
        "recalled": recalled,
        "campaign": campaign,
    }
