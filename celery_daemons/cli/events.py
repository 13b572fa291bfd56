"""``events``: the journal, as it was or as it grows."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

import click

from celery_daemons.cli.documents import Event, emit_line, events_of
from celery_daemons.cli.render import cell, first_line
from celery_daemons.cli.session import Command, daemons_of, json_option, screen_of, tell
from celery_daemons.client.cluster_client import ClusterClient
from celery_daemons.domain.records import JournalEntry
from celery_daemons.errors import StoreUnavailable

#: More entries than the journal keeps: filters look at all of them.
EVERYTHING: Final = 10_000
#: Names that one line for people spells out; batches have up to a thousand.
_SPELLED: Final = 3
#: Seconds between attempts to go on after Redis went away.
_RETRY: Final = 1.0


@click.command("events", cls=Command)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option(
    "--last", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="How many entries back."
)
@click.option("--name", metavar="NAME", help="Only what happened to this daemon.")
@click.option("--node", metavar="NODE", help="Only what happened to this node, and on it.")
@json_option
@click.pass_context
def events(ctx: click.Context, *, follow: bool, last: int, name: str | None, node: str | None, as_json: bool) -> None:
    """What happened lately, oldest first. What befell many daemons at once is one entry; --json prints one for each."""
    cluster = daemons_of(ctx).cluster
    screen = screen_of(ctx)

    def matching(entry: JournalEntry) -> list[Event]:
        return [
            event
            for event in events_of(entry)
            if (name is None or event.name == name) and (node is None or event.node == node)
        ]

    def show(found: Iterable[Event]) -> None:
        if as_json:
            for event in found:
                emit_line(event)
        else:
            for line in entry_lines(found):
                screen.line(line)

    everything = cluster.events(last=EVERYTHING if name or node else max(1, last))
    batches = [found for entry in everything if (found := matching(entry))]
    for batch in batches[-last:] if last else ():
        show(batch)
    if follow:
        with suppress(KeyboardInterrupt):
            for entry in _from_now(cluster, everything[-1].id if everything else "0-0"):
                show(matching(entry))


def _from_now(cluster: ClusterClient, position: str) -> Iterator[JournalEntry]:
    """What happens after ``position``; an outage of Redis is waited out: its end is what one wants to see."""
    away = False
    while True:
        try:
            for entry in cluster.follow_events(position):
                position = entry.id
                away = False
                yield entry
        except StoreUnavailable as error:
            if not away:
                tell(f"waiting: {error}")
            away = True
            time.sleep(_RETRY)


def entry_lines(found: Iterable[Event]) -> Iterator[str]:
    """The events of one entry in few lines: one for those of the same cause."""
    for _, alike in groupby(found, key=lambda event: event.cause):
        batch = list(alike)
        names = [event.name for event in batch if event.name]
        more = f" and {len(names) - _SPELLED} more" if len(names) > _SPELLED else ""
        yield event_line(batch[0], subject=", ".join(names[:_SPELLED]) + more)


def event_line(event: Event, subject: str | None = None) -> str:
    """One event on one line; ``subject`` stands for its name."""
    when = datetime.fromtimestamp(event.at_ms / 1000, tz=UTC).astimezone()
    name = subject if subject is not None else event.name
    where = f"{name} on {event.node}" if name and event.node else name or event.node or ""
    cause = first_line(event.cause) if event.cause else ""
    told = ": ".join(part for part in (where, cause) if part)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03}  {event.event:<12}  {cell(told)}"
