"""``events``: show the journal, or follow it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from typing import Final

import click

from celery_daemons.cli.common import Command, daemons_of, json_option, notify, screen_of, wide_option
from celery_daemons.cli.documents import Event, emit_line, events_of
from celery_daemons.cli.render import caps, cell, columns, first_line, shortened
from celery_daemons.client.lookups import Lookups
from celery_daemons.domain.records import JournalEntry
from celery_daemons.errors import StoreUnavailable

#: More entries than the journal keeps, to filter all of them.
EVERYTHING: Final = 10_000
#: The most names on one line for people; a batch has up to 1,000.
_NAMES_SHOWN: Final = 3
#: Seconds between two attempts while Redis does not answer.
_RETRY_PAUSE: Final = 1.0


@click.command("events", cls=Command)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new events until Ctrl-C.")
@click.option(
    "--last", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="How many entries to show."
)
@click.option("--name", metavar="NAME", help="Only events of this daemon.")
@click.option("--node", metavar="NODE", help="Only events of this node and of daemons on it.")
@wide_option
@json_option
@click.pass_context
def events(ctx: click.Context, *, follow: bool, last: int, name: str | None, node: str | None, as_json: bool) -> None:
    """Show recent events, oldest first.

    An event of many daemons is one entry; --json prints one line per daemon.
    """
    lookups = daemons_of(ctx).lookups
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
            for line in entry_lines(found, screen.width):
                screen.line(line)

    everything = lookups.events(last=EVERYTHING if name or node else max(1, last))
    batches = [found for entry in everything if (found := matching(entry))]
    for batch in batches[-last:] if last else ():
        show(batch)
    if follow:
        with suppress(KeyboardInterrupt):
            for entry in _follow(lookups, everything[-1].id if everything else "0-0"):
                show(matching(entry))


def _follow(lookups: Lookups, position: str) -> Iterator[JournalEntry]:
    """Yield the entries after ``position`` without end. Waits while Redis does not answer."""
    reported = False
    while True:
        try:
            for entry in lookups.follow_events(position):
                position = entry.id
                reported = False
                yield entry
        except StoreUnavailable as error:
            if not reported:
                notify(f"waiting: {error}")
            reported = True
            time.sleep(_RETRY_PAUSE)


def entry_lines(found: Iterable[Event], width: int | None = None) -> Iterator[str]:
    """Yield the events of an entry as text, a single line for neighbouring events with the same cause."""
    for _, same_cause in groupby(found, key=lambda event: event.cause):
        batch = list(same_cause)
        names = [event.name for event in batch if event.name]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        yield event_line(batch[0], subject=", ".join(names[:_NAMES_SHOWN]) + more, width=width)


def event_line(event: Event, subject: str | None = None, *, width: int | None = None) -> str:
    """Return an event as a line of text, with ``subject`` in place of the daemon's name if given.

    With ``width``, the date is short, and names and causes are shortened so that the line fits.
    """
    when = datetime.fromtimestamp(event.at_ms / 1000, tz=UTC).astimezone()
    names = (subject if subject is not None else event.name) or ""
    parts = [
        (cell(text), form)
        for text, form in (
            (names, "{}"),
            (event.node or "", " on {}" if names else "{}"),
            (first_line(event.cause) if event.cause else "", ": {}" if names or event.node else "{}"),
            (event.actor or "", " (by {})"),
        )
        if text
    ]
    texts, forms = [text for text, _ in parts], [form for _, form in parts]
    moment = f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03}" if width is None else f"{when:%m-%d %H:%M:%S}"
    start = f"{moment}  {event.event:<12}  "
    if width is not None:
        room = width - len(start) - sum(len(form) - len("{}") for form in forms)
        sizes = caps([columns(text) for text in texts], room)
        texts = [shortened(text, size) for text, size in zip(texts, sizes, strict=True)]
    return start + "".join(form.format(text) for text, form in zip(texts, forms, strict=True))
