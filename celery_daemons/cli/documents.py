"""What the commands print for programs: one JSON document, or one JSON object per line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec

from celery_daemons.client.lookups import ClusterStatus
from celery_daemons.domain.records import JournalEntry

#: Events about specs: their items have the version of the spec where other items have a token.
_SPEC_EVENTS: Final = frozenset(("want", "start", "stop", "restart", "forget"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event of a daemon or, if ``name`` is ``None``, of a node or of the cluster.

    ``name`` of a failed scan is that of the launcher. ``at_ms`` is Unix time in milliseconds by Redis's clock.
    ``actor`` is the person or process that asked for the change, ``None`` if there was no request.
    """

    id: str
    at_ms: int
    event: str
    name: str | None
    node: str | None
    token: int | None
    epoch: int | None
    cause: str | None
    actor: str | None = None


def events_of(entry: JournalEntry) -> Iterator[Event]:
    """Yield the events of a journal entry: an event per daemon of a batch."""
    for name, token, cause, *_ in ((*item, "", "", "")[:3] for item in entry.items or ((),)):
        yield Event(
            id=entry.id,
            at_ms=entry.at_ms,
            event=entry.event,
            name=name or None,
            node=entry.node,
            token=None if entry.event in _SPEC_EVENTS or not token.isdigit() else int(token) or None,
            epoch=entry.epoch,
            cause=cause or entry.cause,
            actor=entry.actor,
        )


def status_document(status: ClusterStatus) -> dict[str, Any]:
    """Return the document that ``status --json`` prints."""
    return {
        "namespace": status.namespace,
        "leader": status.leader,
        "nodes": {name: status.nodes[name] for name in ("up", "draining", "lost")},
        "daemons": status.daemons,
        "launchers": status.launchers,
        "scanners": status.scanners,
        "rebalance_paused": status.rebalance_paused,
        "problems": status.problems,
        "blocked": status.blocked,
        "warnings": status.warnings,
    }


def emit(document: Any) -> None:
    """Print a JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def emit_line(document: Any) -> None:
    """Print a JSON document on a single line, for a stream of documents."""
    click.echo(msgspec.json.encode(document))
