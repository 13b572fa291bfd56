"""The verbs about what should run: specs, and the desired state in them."""

from collections.abc import Sequence
from typing import Any, Literal

from celery_daemons.domain.names import DaemonName, Epoch, LauncherName
from celery_daemons.store.book import epoch_over
from celery_daemons.store.codec import encode, printable
from celery_daemons.store.keys import Keys
from celery_daemons.store.script import ScriptCall, text

RecordMode = Literal["spawn", "replace", "scan"]
RecordOutcome = Literal["new", "same", "replaced", "conflict"]


def record(
    keys: Keys,
    items: Sequence[tuple[DaemonName, LauncherName, str]],
    *,
    mode: RecordMode,
    epoch: Epoch | None = None,
) -> ScriptCall[list[RecordOutcome]]:
    """Record that daemons should run: ``(name, launcher, arguments)`` each; answers what came of each.

    A scan goes under the monitor's ``epoch``, which may be over: LeaseLost.
    """

    def decode(reply: Any) -> list[RecordOutcome]:
        if epoch is not None and reply == [-1]:
            raise epoch_over(epoch)
        return [text(outcome) for outcome in reply]  # type: ignore[misc]

    return ScriptCall(
        "want",
        (keys.specs, keys.clock, keys.journal, keys.monitor),
        (encode(items), mode, "" if epoch is None else str(epoch)),
        decode,
    )


Action = Literal["stop", "start", "restart", "move"]


def desire(keys: Keys, name: DaemonName, action: Action, *, target: str = "", avoid: str = "") -> ScriptCall[bool]:
    """Stop, start, restart or move a daemon; false when none of that name is known.

    ``target`` and ``avoid`` are nodes: where one that moves shall start next, or where not.
    """
    return ScriptCall("desire", (keys.specs, keys.clock, keys.journal), (name, action, target, avoid), bool)


def pause_rebalance(keys: Keys, *, paused: bool) -> ScriptCall[int]:
    """Stop the monitor from moving what may stay where it is, or let it do so again."""
    return ScriptCall("pace", (keys.cluster, keys.journal), ("paused" if paused else "resumed",), int)


def forget(keys: Keys, names: Sequence[DaemonName], *, cause: str, epoch: Epoch | None = None) -> ScriptCall[int]:
    """Want daemons no more; answers how many were known. Raises LeaseLost for a monitor whose ``epoch`` is over."""

    def decode(reply: Any) -> int:
        if epoch is not None and reply == -1:
            raise epoch_over(epoch)
        return int(reply)

    return ScriptCall(
        "forget",
        (keys.specs, keys.book, keys.journal, keys.monitor, keys.traces),
        (encode(names), cause, "" if epoch is None else str(epoch)),
        decode,
    )


def scanned(
    keys: Keys, epoch: Epoch, launcher: LauncherName, *, listed: int, took_ms: int, error: str | None
) -> ScriptCall[bool]:
    """Record how the last run of a launcher's recovery scanner went; false when the epoch is over."""
    return ScriptCall(
        "scanned",
        (keys.monitor, keys.scans, keys.journal),
        (str(epoch), launcher, listed, took_ms, printable(error or "")),
        bool,
    )
