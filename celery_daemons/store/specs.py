"""The verbs that change specs: which daemons should run, and in which desired state."""

from collections.abc import Sequence
from typing import Any, Literal

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import Keys
from celery_daemons.store.lease import epoch_over
from celery_daemons.store.script import ScriptCall, text

RecordMode = Literal["spawn", "replace", "scan"]
RecordOutcome = Literal["new", "same", "replaced", "conflict"]


def record(
    keys: Keys,
    items: Sequence[tuple[DaemonName, LauncherName, str]],
    *,
    mode: RecordMode,
    actor: str = "",
    epoch: Epoch | None = None,
) -> ScriptCall[list[RecordOutcome]]:
    """Record that daemons should run, ``(name, launcher, arguments)`` each; answer the outcome of each.

    ``actor`` is the person or process that asked. ``epoch`` is the monitor's for a scan; raises LeaseLost if that epoch
    is over.
    """

    def decode(reply: Any) -> list[RecordOutcome]:
        if epoch is not None and reply == [-1]:
            raise epoch_over(epoch)
        return [text(outcome) for outcome in reply]  # type: ignore[misc]

    return ScriptCall(
        "want",
        (keys.specs, keys.clock, keys.journal, keys.monitor, keys.book, *keys.tallies),
        (encode(items), mode, "" if epoch is None else str(epoch), actor),
        decode,
    )


Action = Literal["stop", "start", "restart", "move"]


def desire(
    keys: Keys, name: DaemonName, action: Action, *, actor: str = "", target: str = "", avoid: str = ""
) -> ScriptCall[bool]:
    """Stop, start, restart or move a daemon; false if there is no daemon with that name.

    For a move, ``target`` is the node of the next start, or ``avoid`` a node on which it should not be.
    """
    return ScriptCall(
        "desire",
        (keys.specs, keys.clock, keys.journal, keys.book, *keys.tallies),
        (name, action, target, avoid, actor),
        bool,
    )


def pause_rebalance(keys: Keys, *, paused: bool, actor: str = "") -> ScriptCall[int]:
    """Pause rebalancing or, if ``paused`` is false, resume rebalancing."""
    return ScriptCall("pace", (keys.cluster, keys.journal), ("paused" if paused else "resumed", actor), int)


def forget(
    keys: Keys, names: Sequence[DaemonName], *, cause: str, actor: str = "", epoch: Epoch | None = None
) -> ScriptCall[int]:
    """Delete specs, so that the daemons stop; answer how many existed.

    ``epoch`` is the monitor's when it prunes; raises LeaseLost if that epoch is over.
    """

    def decode(reply: Any) -> int:
        if epoch is not None and reply == -1:
            raise epoch_over(epoch)
        return int(reply)

    return ScriptCall(
        "forget",
        (
            keys.specs,
            keys.book,
            keys.journal,
            keys.monitor,
            keys.traces,
            keys.clock,
            keys.ended,
            *keys.tallies,
        ),
        (encode(names), cause, "" if epoch is None else str(epoch), actor),
        decode,
    )


def scanned(
    keys: Keys, epoch: Epoch, launcher: LauncherName, *, listed: int, took_ms: int, error: str | None
) -> ScriptCall[bool]:
    """Record the result of a recovery scan of a launcher; false if the epoch is over."""
    return ScriptCall(
        "scanned",
        (keys.monitor, keys.scans, keys.journal),
        (str(epoch), launcher, listed, took_ms, printable(error or "")),
        bool,
    )
