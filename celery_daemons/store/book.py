"""The verbs about daemons: what is wanted, where it is assigned, who runs it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation, LauncherName, NodeName
from celery_daemons.domain.records import NodeRow
from celery_daemons.domain.states import DaemonStatus, Outcome
from celery_daemons.errors import LeaseLost
from celery_daemons.store.calls import Call, compact, text
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import LAYOUT, Keys
from celery_daemons.store.lease import mismatch


@dataclass(frozen=True, slots=True)
class Dispatch:
    """What was assigned to, or recalled from, one node: per item its token, ``""`` for an item that was refused."""

    generation: int
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed daemon; ``refused`` says why not, and is empty when it was granted.

    ``shun`` is the node that has given up on it, empty for none.
    """

    token: str
    launcher: LauncherName
    arguments: str
    version: str
    restarts: int
    shun: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a claimed daemon is doing."""

    name: DaemonName
    token: str
    status: DaemonStatus
    pid: int
    restarts: int
    error: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A daemon given back, and how its life ended."""

    name: DaemonName
    token: str
    outcome: Outcome
    restarts: int
    error: str | None = None
    trace: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A daemon that a node runs, with all that Redis must know of it."""

    name: DaemonName
    token: str
    launcher: LauncherName
    arguments: str
    version: str
    status: DaemonStatus
    pid: int
    restarts: int


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep freed; ``left`` daemons wait for the next call. ``alive_ms`` is set when the lease still runs."""

    names: tuple[DaemonName, ...]
    left: int
    alive_ms: int = 0


def _plain(items: Iterable[Any]) -> bytes:
    plain = [compact({slot: getattr(item, slot) for slot in item.__slots__}) for item in items]
    for fields in plain:
        for told in ("error", "trace"):
            if told in fields:
                fields[told] = printable(fields[told])
    return encode(plain)


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
) -> Call[Dispatch | None]:
    """Assign ``(name, cause)`` each to a node; ``None`` when it is not up any more. Raises LeaseLost."""

    def decode(reply: Any) -> Dispatch | None:
        if reply[0] == -1:
            raise epoch_over(epoch)
        if reply[0] == 0:
            return None
        return Dispatch(int(reply[0]), tuple(text(token) for token in reply[1:]))

    return Call(
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


def recall(keys: Keys, epoch: Epoch, node: NodeName, items: Sequence[tuple[DaemonName, str]]) -> Call[Dispatch]:
    """Ask a node to stop and release ``(name, cause)`` each. Raises LeaseLost."""

    def decode(reply: Any) -> Dispatch:
        if reply[0] == -1:
            raise epoch_over(epoch)
        return Dispatch(int(reply[0]), tuple(text(token) for token in reply[1:]))

    return Call(
        "recall",
        (keys.monitor, keys.book, keys.generation(node), keys.journal),
        (str(epoch), node, encode(items)),
        decode,
    )


def park(keys: Keys, epoch: Epoch, items: Sequence[tuple[DaemonName, str]]) -> Call[int]:
    """Record that daemons have no node, ``(name, why)`` each; answers how many records changed. Raises LeaseLost."""

    def decode(reply: Any) -> int:
        if reply == -1:
            raise epoch_over(epoch)
        return int(reply)

    return Call("park", (keys.monitor, keys.specs, keys.book, keys.journal), (str(epoch), encode(items)), decode)


def sweep(keys: Keys, epoch: Epoch, node: NodeName, *, limit: int) -> Call[Swept]:
    """Free what a node whose lease has ended left behind. Raises LeaseLost."""

    def decode(reply: Any) -> Swept:
        verdict = text(reply[0])
        if verdict == "epoch":
            raise epoch_over(epoch)
        if verdict == "alive":
            return Swept((), 0, int(reply[1]))
        return Swept(tuple(DaemonName(text(name)) for name in reply[2:]), int(reply[1]))

    return Call(
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
    items: Sequence[tuple[DaemonName, str]],
    *,
    server: str = "",
) -> Call[list[Claim] | None]:
    """Take ``(name, token)`` each so as to start them; ``None`` while no monitor has settled with ``server``.

    Raises LeaseLost when the node is fenced.
    """

    def decode(reply: Any) -> list[Claim] | None:
        if not reply:
            raise LeaseLost(f"node {node}: incarnation {incarnation} is fenced, it claims nothing")
        if isinstance(reply[0], bytes):
            return None
        claims = []
        for item in reply:
            if len(item) == 2:
                claims.append(Claim("", LauncherName(""), "", "", 0, refused=text(item[1])))
            else:
                token, launcher, arguments, version, restarts, shun = item
                kind = LauncherName(text(launcher))
                claims.append(Claim(text(token), kind, text(arguments), text(version), int(restarts), text(shun)))
        return claims

    return Call(
        "claim",
        (keys.nodes, keys.leases, keys.specs, keys.book, keys.clock, keys.journal, keys.cluster, keys.held(node)),
        (node, incarnation, encode(items), server),
        decode,
    )


def report(keys: Keys, node: NodeName, incarnation: Incarnation, items: Sequence[Report]) -> Call[list[bool]]:
    """Say how claimed daemons are doing; false for one whose token is no longer the book's. Raises LeaseLost."""
    return Call(
        "report",
        (keys.nodes, keys.book, keys.journal, keys.traces),
        (node, incarnation, _plain(items)),
        _flags(f"node {node}: incarnation {incarnation} is fenced, it reports nothing"),
    )


def release(keys: Keys, node: NodeName, items: Sequence[Release]) -> Call[list[bool]]:
    """Give daemons back; false for one that the caller did not hold."""
    return Call(
        "release",
        (keys.specs, keys.book, keys.held(node), keys.journal, keys.traces),
        (node, _plain(items)),
        lambda reply: [flag == 1 for flag in reply],
    )


def reassert(
    keys: Keys, node: NodeName, row: NodeRow, items: Sequence[Running], *, ttl_ms: int
) -> Call[tuple[int, list[bool]] | None]:
    """Tell a Redis that lost data what this node runs.

    Answers the generation and, per item, false where a newer token holds the name; ``None`` when another incarnation of
    the node is alive. Raises LayoutMismatch.
    """

    def decode(reply: Any) -> tuple[int, list[bool]] | None:
        if isinstance(reply[0], bytes):
            if text(reply[0]) == "layout":
                raise mismatch(text(reply[1]))
            return None
        return int(reply[0]), [flag == 1 for flag in reply[1:]]

    return Call(
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
