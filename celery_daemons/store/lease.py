"""The verbs for leases: the lease of a node to run daemons, and the lease of the monitor to assign daemons."""

from dataclasses import dataclass, field
from typing import Any, Literal

from celery_daemons.domain.names import Epoch, Incarnation, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.errors import LayoutMismatch, LeaseLost
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.script import ScriptCall, text


@dataclass(frozen=True, slots=True)
class Joined:
    """The node has joined; the lease runs from the moment at which the call was sent.

    ``history`` is that of the server; see :func:`~celery_daemons.store.server_pin.server_id`.
    """

    generation: int
    created_ms: str
    server_ms: int = field(default=0, compare=False)
    longest_lease_ms: int = field(default=0, compare=False)
    history: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """The node was not joined: the lease of another incarnation runs for ``left_ms`` more by Redis's clock.

    ``end_ms`` is the end of that lease and ``server_ms`` the time of the answer, both by Redis's clock. ``length_ms``
    is the length of the lease, 0 if it is not known.
    """

    left_ms: int
    incarnation: Incarnation
    server_ms: int = field(default=0, compare=False)
    end_ms: int = field(default=0, compare=False)
    length_ms: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Beat:
    """The answer to a heartbeat; ``led`` says whether a monitor leads.

    ``server_ms`` is the time by Redis's clock, ``longest_lease_ms`` the longest lease of a registered node, ``history``
    that of the server, ``problem`` what the node's record has as the reason why it takes no daemons, ``draining``
    whether the node was asked to drain. ``fenced`` means that another incarnation has joined, ``data_lost`` that Redis
    does not know the node.
    """

    verdict: Literal["ok", "fenced", "data_lost"]
    generation: int = 0
    created_ms: str = ""
    led: bool = False
    server_ms: int = field(default=0, compare=False)
    longest_lease_ms: int = field(default=0, compare=False)
    history: str = field(default="", compare=False)
    problem: str = field(default="", compare=False)
    draining: bool = field(default=False, compare=False)


def epoch_over(epoch: Epoch) -> LeaseLost:
    """Return the error for a monitor that no longer holds the lease of ``epoch``."""
    return LeaseLost(
        f"the monitor's epoch {epoch} is over: its lease has ended or another monitor leads; nothing was changed"
    )


def layout_mismatch(found: str) -> LayoutMismatch:
    """Return the error for a namespace that uses layout ``found``."""
    return LayoutMismatch(
        f"this namespace uses key layout v{found}, this version of celery_daemons supports v{LAYOUT}: "
        "run versions with the same layout, or set another daemons_namespace for this one"
    )


def join(
    keys: Keys,
    node: NodeName,
    row: NodeRow,
    *,
    ttl_ms: int,
    previous: Incarnation | None = None,
    server: str = "",
    ended_ms: int | None = None,
) -> ScriptCall[Joined | Taken]:
    """Join the cluster as ``row.incarnation``, connected to ``server``. Raises LayoutMismatch, LeaseLost.

    ``previous`` is an earlier incarnation that the caller knows to be dead, so that its lease need not end first.
    ``ended_ms`` is the end of another incarnation's lease that has ended by the caller's clock, 0 for none; with
    ``None``, Redis's clock decides whether such a lease has ended.
    """

    def decode(reply: Any) -> Joined | Taken:
        verdict = text(reply[0])
        if verdict == "layout":
            raise layout_mismatch(text(reply[1]))
        if verdict == "left":
            raise LeaseLost(
                f"node {node}: incarnation {row.incarnation} has left the cluster; join as a new incarnation instead"
            )
        if verdict == "taken":
            return Taken(int(reply[1]), Incarnation(text(reply[2])), *map(int, reply[3:6]))
        return Joined(int(reply[1]), text(reply[2]), int(reply[3]), int(reply[4]), text(reply[5]))

    return ScriptCall(
        "join",
        (
            keys.cluster,
            keys.nodes,
            keys.leases,
            keys.generation(node),
            keys.journal,
            keys.clock,
            keys.gone,
            keys.lease_lengths,
            keys.ended,
        ),
        (node, encode(row), ttl_ms, previous or "", LAYOUT, server, "" if ended_ms is None else ended_ms),
        decode,
    )


def beat(keys: Keys, node: NodeName, incarnation: Incarnation, *, ttl_ms: int) -> ScriptCall[Beat]:
    """Renew the node's lease."""

    def decode(reply: Any) -> Beat:
        if reply[0] == 1:
            generation, created, led, now, longest, history, problem, draining = reply[1:]
            return Beat(
                "ok",
                int(generation),
                text(created),
                bool(led),
                int(now),
                int(longest),
                text(history),
                text(problem),
                bool(draining),
            )
        return Beat("data_lost" if reply[0] == -1 else "fenced")

    return ScriptCall(
        "beat",
        (keys.cluster, keys.nodes, keys.leases, keys.generation(node), keys.monitor, keys.lease_lengths),
        (node, incarnation, ttl_ms),
        decode,
    )


def drain(
    keys: Keys, node: NodeName, *, on: bool = True, incarnation: Incarnation | None = None, actor: str = ""
) -> ScriptCall[bool]:
    """Stop a node from being assigned daemons, or allow this again; false if no such node is registered.

    ``actor`` is the person or process that asked; empty for the node itself.
    """
    status = "draining" if on else "up"
    return ScriptCall("drain", (keys.nodes, keys.journal), (node, status, incarnation or "", actor), bool)


def serving(keys: Keys, node: NodeName, incarnation: Incarnation, problem: str) -> ScriptCall[bool]:
    """Record why a node cannot start processes, or with an empty text that the node can; false if fenced."""
    return ScriptCall("serving", (keys.nodes, keys.journal), (node, incarnation, printable(problem)), bool)


def leave(keys: Keys, node: NodeName, incarnation: Incarnation) -> ScriptCall[int]:
    """Leave the cluster; answer 0 when done, -1 if fenced, else how many daemons the node still holds."""
    return ScriptCall(
        "leave",
        (
            keys.nodes,
            keys.leases,
            keys.held(node),
            keys.generation(node),
            keys.journal,
            keys.gone,
            keys.lease_lengths,
            keys.clock,
            keys.ended,
        ),
        (node, incarnation),
        int,
    )


def campaign(
    keys: Keys, node: NodeName, incarnation: Incarnation, *, ttl_ms: int, epoch: Epoch | None = None
) -> ScriptCall[Epoch | None]:
    """Take the monitor's lease if the lease is free, or renew that of ``epoch``; ``None`` if another node leads."""
    return ScriptCall(
        "campaign",
        (keys.monitor, keys.clock, keys.journal, keys.ended),
        (node, incarnation, ttl_ms, "" if epoch is None else str(epoch)),
        lambda reply: Epoch(int(reply)) if reply else None,
    )


def confirm_server(keys: Keys, epoch: Epoch, server: str) -> ScriptCall[bool]:
    """Record that leases on the server with this id can be trusted; false if its history has changed meanwhile.

    Raises LeaseLost.
    """

    def decode(reply: Any) -> bool:
        if reply == -1:
            raise epoch_over(epoch)
        return bool(reply)

    return ScriptCall("confirm_server", (keys.monitor, keys.cluster), (str(epoch), server), decode)


def forget_queues(keys: Keys, epoch: Epoch, node: NodeName) -> ScriptCall[bool]:
    """Forget the queues of a departed node; false if the epoch is over or the node has come back."""
    return ScriptCall("bury", (keys.monitor, keys.gone), (str(epoch), node), bool)


def resign(keys: Keys, epoch: Epoch, *, cause: str) -> ScriptCall[bool]:
    """Give the monitor's lease back; false if the epoch was over already."""
    return ScriptCall("resign", (keys.monitor, keys.journal), (str(epoch), cause), bool)
