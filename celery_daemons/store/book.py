"""The verbs that change entries of the address book: assign, recall, park, sweep, claim, report, release, reassert."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Assignment, ClaimResult, Release, Report, Running
from celery_daemons.errors import LeaseLost
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.lease import epoch_over, layout_mismatch
from celery_daemons.store.script import ScriptCall, compact, text


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The result of an assignment to, or a recall from, a node: a token per item, 0 for a refused item."""

    generation: int
    tokens: tuple[Token, ...]


class NotAssigned(Enum):
    """Why nothing was assigned."""

    NODE = "the node is no longer up, or cannot start processes"
    SERVER = "the server has another history than the one that the monitor has confirmed"


@dataclass(frozen=True, slots=True)
class Swept:
    """The daemons that a sweep freed.

    ``left`` daemons remain for the next call. If the node has another lease, it is ``alive`` and nothing was freed.
    """

    names: tuple[DaemonName, ...]
    left: int
    alive: bool = False


def _plain(items: Iterable[Any]) -> bytes:
    plain = [compact({slot: getattr(item, slot) for slot in item.__struct_fields__}) for item in items]
    for fields in plain:
        # As text, because Lua would round a large number.
        fields["token"] = str(fields["token"])
        for key in ("error", "trace"):
            if key in fields:
                fields[key] = printable(fields[key])
    return encode(plain)


def _verdict(reply: Any) -> str:
    """Return the word that a verb answers in place of one result per item; empty for results, also for none."""
    return text(reply[0]) if reply and isinstance(reply[0], bytes) else ""


def _token(raw: Any) -> Token:
    return Token(int(raw or 0))


def _fenced(node: NodeName, incarnation: Incarnation, refused: str) -> LeaseLost:
    return LeaseLost(
        f"node {node}: incarnation {incarnation} is fenced and cannot {refused}: its lease has ended, or another "
        "incarnation has joined; its daemons must stop"
    )


def assign(
    keys: Keys, epoch: Epoch, node: NodeName, incarnation: Incarnation, items: Sequence[tuple[DaemonName, str]]
) -> ScriptCall[Dispatch | NotAssigned]:
    """Assign daemons, ``(name, cause)`` each. Raises LeaseLost."""

    def decode(reply: Any) -> Dispatch | NotAssigned:
        if reply[0] == -1:
            raise epoch_over(epoch)
        if reply[0] <= 0:
            return NotAssigned.SERVER if reply[0] == -2 else NotAssigned.NODE
        return Dispatch(int(reply[0]), tuple(_token(token) for token in reply[1:]))

    return ScriptCall(
        "assign",
        (
            keys.monitor,
            keys.nodes,
            keys.specs,
            keys.book,
            keys.held(node),
            keys.generation(node),
            keys.clock,
            keys.journal,
            keys.cluster,
            *keys.tallies,
        ),
        (str(epoch), node, incarnation, encode(items)),
        decode,
    )


def recall(keys: Keys, epoch: Epoch, node: NodeName, items: Sequence[tuple[DaemonName, str]]) -> ScriptCall[Dispatch]:
    """Ask a node to stop and release daemons, ``(name, cause)`` each. Raises LeaseLost."""

    def decode(reply: Any) -> Dispatch:
        if reply[0] == -1:
            raise epoch_over(epoch)
        return Dispatch(int(reply[0]), tuple(_token(token) for token in reply[1:]))

    return ScriptCall(
        "recall",
        (keys.monitor, keys.book, keys.generation(node), keys.journal, *keys.tallies),
        (str(epoch), node, encode(items)),
        decode,
    )


def park(keys: Keys, epoch: Epoch, items: Sequence[tuple[DaemonName, str]]) -> ScriptCall[int]:
    """Record that no node fits daemons, ``(name, reason)`` each; answer how many records changed. Raises LeaseLost."""

    def decode(reply: Any) -> int:
        if reply == -1:
            raise epoch_over(epoch)
        return int(reply)

    return ScriptCall(
        "park",
        (keys.monitor, keys.specs, keys.book, keys.journal, *keys.tallies),
        (str(epoch), encode(items)),
        decode,
    )


def sweep(keys: Keys, epoch: Epoch, node: NodeName, *, limit: int, ended_ms: int) -> ScriptCall[Swept]:
    """Free up to ``limit`` daemons of a node whose lease has ended. Raises LeaseLost.

    ``ended_ms`` is the end of the lease, as Redis has it, that has ended by the caller's clock; with 0, only a node
    without a lease is swept.
    """

    def decode(reply: Any) -> Swept:
        verdict = text(reply[0])
        if verdict == "epoch":
            raise epoch_over(epoch)
        if verdict == "alive":
            return Swept((), 0, alive=True)
        return Swept(tuple(DaemonName(text(name)) for name in reply[2:]), int(reply[1]))

    return ScriptCall(
        "sweep",
        (
            keys.monitor,
            keys.nodes,
            keys.leases,
            keys.specs,
            keys.book,
            keys.held(node),
            keys.generation(node),
            keys.journal,
            keys.gone,
            keys.traces,
            keys.lease_lengths,
            *keys.tallies,
        ),
        (str(epoch), node, limit, ended_ms),
        decode,
    )


def claim(
    keys: Keys,
    node: NodeName,
    incarnation: Incarnation,
    items: Sequence[Assignment],
    *,
    server: str = "",
) -> ScriptCall[list[ClaimResult] | None]:
    """Claim assigned daemons before the start; answer ``None`` until a monitor has confirmed ``server``.

    ``server`` is the run id of the Redis server; empty to claim without a confirmation. Raises LeaseLost.
    """

    def decode(reply: Any) -> list[ClaimResult] | None:
        verdict = _verdict(reply)
        if verdict == "fenced":
            raise _fenced(node, incarnation, "claim daemons")
        if verdict == "unconfirmed":
            return None
        claims = []
        for item in reply:
            if len(item) == 2:
                claims.append(ClaimResult(Token(0), LauncherName(""), "", "", 0, refused=text(item[1])))
            else:
                token, launcher, arguments, version, restarts, avoid = item
                claims.append(
                    ClaimResult(
                        token=_token(token),
                        launcher=LauncherName(text(launcher)),
                        arguments=text(arguments),
                        version=text(version),
                        restarts=int(restarts),
                        avoid=NodeName(text(avoid)) if avoid else None,
                    )
                )
        return claims

    return ScriptCall(
        "claim",
        (
            keys.nodes,
            keys.leases,
            keys.specs,
            keys.book,
            keys.clock,
            keys.journal,
            keys.cluster,
            keys.held(node),
            *keys.tallies,
        ),
        (node, incarnation, encode([(name, str(token)) for name, token in items]), server),
        decode,
    )


def report(keys: Keys, node: NodeName, incarnation: Incarnation, items: Sequence[Report]) -> ScriptCall[list[bool]]:
    """Report the states of claimed daemons; false for a daemon whose token is out of date. Raises LeaseLost."""

    def decode(reply: Any) -> list[bool]:
        if _verdict(reply) == "fenced":
            raise _fenced(node, incarnation, "report daemons")
        return [flag == 1 for flag in reply]

    return ScriptCall(
        "report",
        (keys.nodes, keys.book, keys.journal, keys.traces, *keys.tallies),
        (node, incarnation, _plain(items)),
        decode,
    )


def release(keys: Keys, node: NodeName, items: Sequence[Release]) -> ScriptCall[list[bool]]:
    """Release daemons; false for a daemon that the caller did not hold."""
    return ScriptCall(
        "release",
        (keys.specs, keys.book, keys.held(node), keys.journal, keys.traces, *keys.tallies),
        (node, _plain(items)),
        lambda reply: [flag == 1 for flag in reply],
    )


def reassert(
    keys: Keys,
    node: NodeName,
    row: NodeRow,
    items: Sequence[Running],
    *,
    ttl_ms: int,
    server: str = "",
    longest_ms: int = 0,
) -> ScriptCall[tuple[int, list[bool]] | None]:
    """Restore the entries of the daemons that this node runs, after Redis has lost data.

    ``server`` is the run id of the server that answers, ``longest_ms`` the longest lease that the node has seen
    registered before the loss. Answers the generation and, per item, false if a newer token exists or the daemon was
    forgotten; ``None`` if another incarnation of the node is alive or this one has left. Raises LayoutMismatch.
    """

    def decode(reply: Any) -> tuple[int, list[bool]] | None:
        verdict = _verdict(reply)
        if verdict == "layout":
            raise layout_mismatch(text(reply[1]))
        if verdict:
            return None
        return int(reply[0]), [flag == 1 for flag in reply[1:]]

    return ScriptCall(
        "reassert",
        (
            keys.cluster,
            keys.nodes,
            keys.leases,
            keys.specs,
            keys.book,
            keys.held(node),
            keys.generation(node),
            keys.clock,
            keys.journal,
            keys.gone,
            keys.lease_lengths,
            keys.ended,
            *keys.tallies,
        ),
        (node, encode(row), ttl_ms, LAYOUT, _plain(items), server, longest_ms),
        decode,
    )
