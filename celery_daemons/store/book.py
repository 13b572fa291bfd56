"""The verbs about daemons: what is wanted, where it is assigned, who runs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.runs import Assignment, ClaimResult, Release, Report, Running
from celery_daemons.errors import LeaseLost
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.lease import layout_mismatch
from celery_daemons.store.script import ScriptCall, compact, text


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What was assigned to, or recalled from, one node: per item its token, 0 for an item that was refused."""

    generation: int
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep freed; ``left`` daemons wait for the next call. ``alive_ms`` is set when the lease still runs."""

    names: tuple[DaemonName, ...]
    left: int
    alive_ms: int = 0


def _plain(items: Iterable[Any]) -> bytes:
    plain = [compact({slot: getattr(item, slot) for slot in item.__slots__}) for item in items]
    for fields in plain:
        # As text: Lua would round a large number.
        fields["token"] = str(fields["token"])
        for told in ("error", "trace"):
            if told in fields:
                fields[told] = printable(fields[told])
    return encode(plain)


def _token(raw: Any) -> Token:
    return Token(int(raw or 0))


def _flags(fenced: str) -> Any:
    def decode(reply: Any) -> list[bool]:
        if not reply:
            raise LeaseLost(fenced)
        return [flag == 1 for flag in reply]

    return decode


def epoch_over(epoch: Epoch) -> LeaseLost:
    """The error for a monitor that has been deposed."""
    return LeaseLost(f"the monitor's epoch {epoch} is over: another monitor leads")


def assign(
    keys: Keys, epoch: Epoch, node: NodeName, incarnation: Incarnation, items: Sequence[tuple[DaemonName, str]]
) -> ScriptCall[Dispatch | None]:
    """Assign ``(name, cause)`` each to a node; ``None`` when it is not up any more. Raises LeaseLost."""

    def decode(reply: Any) -> Dispatch | None:
        if reply[0] == -1:
            raise epoch_over(epoch)
        if reply[0] == 0:
            return None
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
        ),
        (str(epoch), node, incarnation, encode(items)),
        decode,
    )


def recall(keys: Keys, epoch: Epoch, node: NodeName, items: Sequence[tuple[DaemonName, str]]) -> ScriptCall[Dispatch]:
    """Ask a node to stop and release ``(name, cause)`` each. Raises LeaseLost."""

    def decode(reply: Any) -> Dispatch:
        if reply[0] == -1:
            raise epoch_over(epoch)
        return Dispatch(int(reply[0]), tuple(_token(token) for token in reply[1:]))

    return ScriptCall(
        "recall",
        (keys.monitor, keys.book, keys.generation(node), keys.journal),
        (str(epoch), node, encode(items)),
        decode,
    )


def park(keys: Keys, epoch: Epoch, items: Sequence[tuple[DaemonName, str]]) -> ScriptCall[int]:
    """Record that daemons have no node, ``(name, why)`` each; answers how many records changed. Raises LeaseLost."""

    def decode(reply: Any) -> int:
        if reply == -1:
            raise epoch_over(epoch)
        return int(reply)

    return ScriptCall("park", (keys.monitor, keys.specs, keys.book, keys.journal), (str(epoch), encode(items)), decode)


def sweep(keys: Keys, epoch: Epoch, node: NodeName, *, limit: int) -> ScriptCall[Swept]:
    """Free what a node whose lease has ended left behind. Raises LeaseLost."""

    def decode(reply: Any) -> Swept:
        verdict = text(reply[0])
        if verdict == "epoch":
            raise epoch_over(epoch)
        if verdict == "alive":
            return Swept((), 0, int(reply[1]))
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
        ),
        (str(epoch), node, limit),
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
    """Take ``(name, token)`` each so as to start them; ``None`` while no monitor has settled with ``server``.

    Raises LeaseLost when the node is fenced.
    """

    def decode(reply: Any) -> list[ClaimResult] | None:
        if not reply:
            raise LeaseLost(f"node {node}: incarnation {incarnation} is fenced, it claims nothing")
        if isinstance(reply[0], bytes):
            return None
        claims = []
        for item in reply:
            if len(item) == 2:
                claims.append(ClaimResult(Token(0), LauncherName(""), "", "", 0, refused=text(item[1])))
            else:
                token, launcher, arguments, version, restarts, avoid = item
                kind = LauncherName(text(launcher))
                avoid = NodeName(text(avoid)) if avoid else None
                claims.append(ClaimResult(_token(token), kind, text(arguments), text(version), int(restarts), avoid))
        return claims

    return ScriptCall(
        "claim",
        (keys.nodes, keys.leases, keys.specs, keys.book, keys.clock, keys.journal, keys.cluster, keys.held(node)),
        (node, incarnation, encode([(name, str(token)) for name, token in items]), server),
        decode,
    )


def report(keys: Keys, node: NodeName, incarnation: Incarnation, items: Sequence[Report]) -> ScriptCall[list[bool]]:
    """Say how claimed daemons are doing; false for one whose token is no longer the book's. Raises LeaseLost."""
    return ScriptCall(
        "report",
        (keys.nodes, keys.book, keys.journal, keys.traces),
        (node, incarnation, _plain(items)),
        _flags(f"node {node}: incarnation {incarnation} is fenced, it reports nothing"),
    )


def release(keys: Keys, node: NodeName, items: Sequence[Release]) -> ScriptCall[list[bool]]:
    """Give daemons back; false for one that the caller did not hold."""
    return ScriptCall(
        "release",
        (keys.specs, keys.book, keys.held(node), keys.journal, keys.traces),
        (node, _plain(items)),
        lambda reply: [flag == 1 for flag in reply],
    )


def reassert(
    keys: Keys, node: NodeName, row: NodeRow, items: Sequence[Running], *, ttl_ms: int
) -> ScriptCall[tuple[int, list[bool]] | None]:
    """Tell a Redis that lost data what this node runs.

    Answers the generation and, per item, false where a newer token holds the name; ``None`` when another incarnation of
    the node is alive. Raises LayoutMismatch.
    """

    def decode(reply: Any) -> tuple[int, list[bool]] | None:
        if isinstance(reply[0], bytes):
            if text(reply[0]) == "layout":
                raise layout_mismatch(text(reply[1]))
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
        ),
        (node, encode(row), ttl_ms, LAYOUT, _plain(items)),
        decode,
    )
