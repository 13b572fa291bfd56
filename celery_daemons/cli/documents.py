"""What the commands print for programs: records as JSON, one document, or one object a line."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import click
import msgspec

from celery_daemons.client.lookups import ClusterStatus
from celery_daemons.domain.records import JournalEntry

#: Entries whose items carry the version of a spec where others carry a token.
_WISHES: Final = frozenset(("want", "start", "stop", "restart", "forget"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one daemon or, without a name, to a node or to the cluster.

    A failed scan carries its launcher's name.
    """

    id: str
    at_ms: int
    event: str
    name: str | None
    node: str | None
    token: int | None
    epoch: int | None
    cause: str | None


def events_of(entry: JournalEntry) -> Iterator[Event]:
    """Take a journal entry apart: a batch is one event for each of its daemons."""
    for name, token, cause, *_ in ((*item, "", "", "")[:3] for item in entry.items or ((),)):
        yield Event(
            id=entry.id,
            at_ms=entry.at_ms,
            event=entry.event,
            name=name or None,
            node=entry.node,
            token=None if entry.event in _WISHES or not token.isdigit() else int(token) or None,
            epoch=entry.epoch,
            cause=cause or entry.cause,
        )


def status_document(status: ClusterStatus) -> dict[str, Any]:
    """The document of ``status``."""
    return {
        "namespace": status.namespace,
        "leader": status.leader,
        "nodes": {name: status.nodes[name] for name in ("up", "draining")},
        "daemons": status.daemons,
        "scanners": status.scanners,
        "rebalance_paused": status.rebalance_paused,
    }


def emit(document: Any) -> None:
    """Print one document."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def emit_line(document: Any) -> None:
    """Print one document as one line of a stream."""
    click.echo(msgspec.json.encode(document))
