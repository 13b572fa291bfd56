"""The verbs about rights that expire: a node's to run daemons, and the monitor's to assign them."""

from dataclasses import dataclass
from typing import Any, Literal

from celery_daemons.domain.names import Epoch, Incarnation, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.errors import LayoutMismatch
from celery_daemons.store.codec import encode
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.script import ScriptCall, text


@dataclass(frozen=True, slots=True)
class Joined:
    """The node takes part; its lease runs from the moment the call was sent."""

    generation: int
    created_ms: str


@dataclass(frozen=True, slots=True)
class Taken:
    """Another incarnation of the name is alive for at least so long."""

    left_ms: int
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat: ``fenced`` by another incarnation, ``data_lost``, or ``ok``."""

    verdict: Literal["ok", "fenced", "data_lost"]
    generation: int = 0
    created_ms: str = ""
    led: bool = False


def layout_mismatch(found: str) -> LayoutMismatch:
    """The error for a namespace with another layout."""
    return LayoutMismatch(
        f"this namespace holds key layout v{found}, this version of celery_daemons speaks v{LAYOUT}: "
        "run versions that share a layout, or give this one a daemons_namespace of its own"
    )


def join(
    keys: Keys, node: NodeName, row: NodeRow, *, ttl_ms: int, previous: Incarnation | None = None
) -> ScriptCall[Joined | Taken]:
    """Take part as ``row.incarnation``; ``previous`` is one that the caller has seen dead. Raises LayoutMismatch."""

    def decode(reply: Any) -> Joined | Taken:
        verdict = text(reply[0])
        if verdict == "layout":
            raise layout_mismatch(text(reply[1]))
        if verdict == "taken":
            return Taken(int(reply[1]), Incarnation(text(reply[2])))
        return Joined(int(reply[1]), text(reply[2]))

    return ScriptCall(
        "join",
        (keys.cluster, keys.nodes, keys.leases, keys.generation(node), keys.journal, keys.clock, keys.gone),
        (node, encode(row), ttl_ms, previous or "", LAYOUT),
        decode,
    )


def beat(keys: Keys, node: NodeName, incarnation: Incarnation, *, ttl_ms: int) -> ScriptCall[Beat]:
    """Renew the node's lease."""

    def decode(reply: Any) -> Beat:
        if reply[0] == 1:
            return Beat("ok", int(reply[1]), text(reply[2]), bool(reply[3]))
        return Beat("data_lost" if reply[0] == -1 else "fenced")

    return ScriptCall(
        "beat",
        (keys.cluster, keys.nodes, keys.leases, keys.generation(node), keys.monitor),
        (node, incarnation, ttl_ms),
        decode,
    )


def drain(keys: Keys, node: NodeName, *, on: bool = True, incarnation: Incarnation | None = None) -> ScriptCall[bool]:
    """Let a node take no more daemons, or take them again; false when no such node is registered."""
    status = "draining" if on else "up"
    return ScriptCall("drain", (keys.nodes, keys.journal), (node, status, incarnation or ""), bool)


def leave(keys: Keys, node: NodeName, incarnation: Incarnation) -> ScriptCall[int]:
    """Leave the cluster; 0 when done, else how many daemons the node still holds, or -1 when it is fenced."""
    return ScriptCall(
        "leave",
        (keys.nodes, keys.leases, keys.held(node), keys.generation(node), keys.journal, keys.gone),
        (node, incarnation),
        int,
    )


def campaign(
    keys: Keys, node: NodeName, incarnation: Incarnation, *, ttl_ms: int, epoch: Epoch | None = None
) -> ScriptCall[Epoch | None]:
    """Take the monitor's lease if it is free, or renew the one of ``epoch``; ``None`` when it is another's."""
    return ScriptCall(
        "campaign",
        (keys.monitor, keys.clock, keys.journal),
        (node, incarnation, ttl_ms, "" if epoch is None else str(epoch)),
        lambda reply: Epoch(int(reply)) if reply else None,
    )


def confirm_server(keys: Keys, epoch: Epoch, server: str) -> ScriptCall[bool]:
    """Record that the leases on a server, named by its run id, can be trusted; false when the epoch is over."""
    return ScriptCall("confirm_server", (keys.monitor, keys.cluster), (str(epoch), server), bool)


def forget_queues(keys: Keys, epoch: Epoch, node: NodeName) -> ScriptCall[bool]:
    """Forget the queues of a node that is gone; false when it has come back."""
    return ScriptCall("bury", (keys.monitor, keys.gone), (str(epoch), node), bool)


def resign(keys: Keys, epoch: Epoch, *, cause: str) -> ScriptCall[bool]:
    """Give the monitor's lease back; false when the epoch was over already."""
    return ScriptCall("resign", (keys.monitor, keys.journal), (str(epoch), cause), bool)
