"""``describe``: show everything that is known about one daemon."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import click

from celery_daemons.cli.common import Command, as_called, daemons_of, json_option, prog, screen_of, wide_option
from celery_daemons.cli.documents import emit, events_of
from celery_daemons.cli.events import EVERYTHING, event_line
from celery_daemons.cli.render import blocked_text, cell, first_line, since
from celery_daemons.client.lookups import Lookups
from celery_daemons.domain.records import DaemonRecord
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.errors import DaemonsError

#: The number of events that are shown.
_EVENTS_SHOWN: Final = 10


@click.command("describe", cls=Command)
@click.argument("name")
@wide_option
@json_option
@click.pass_context
def describe(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """Show everything that is known about a daemon: spec, placement, errors and events."""
    lookups = daemons_of(ctx).lookups
    record = lookups.record(name)
    arguments = lookups.arguments(name)
    if record is None or arguments is None:
        raise DaemonsError(f"no daemon {name} is known; `{prog(ctx)} list` shows all daemons")
    of_daemon = [event for entry in lookups.events(last=EVERYTHING) for event in events_of(entry) if event.name == name]
    latest = of_daemon[-_EVENTS_SHOWN:]
    why = _why(record, lookups)
    preferred, placement, trace = lookups.pick_node(name), lookups.why_there(name), lookups.trace(name)
    why = as_called(ctx, why) if why else None
    if as_json:
        rest = {"why": why, "placement": placement, "preferred_node": preferred, "traceback": trace, "events": latest}
        emit({**asdict(record), **_call(arguments), **rest})
        return
    screen = screen_of(ctx)
    screen.pairs(_pairs(record, arguments, why, placement, preferred, lookups))
    if trace:
        screen.line()
        screen.line("traceback of the last error")
        for line in trace.rstrip().splitlines():
            screen.line(f"  {cell(line)}")
    screen.line()
    screen.line("last events" if latest else "no events: the journal keeps only the latest")
    for event in latest:
        screen.line(f"  {event_line(event, width=screen.width and screen.width - 2)}")


def _why(record: DaemonRecord, lookups: Lookups) -> str | None:
    """Return why the daemon does not run, or ``None`` for a daemon that runs or is starting."""
    if record.status in (DaemonStatus.BACKOFF, DaemonStatus.FAILED, DaemonStatus.UNPLACEABLE):
        return record.error
    return lookups.why_not(record.name) if record.node is None else None


def _pairs(
    record: DaemonRecord,
    arguments: str,
    why: str | None,
    placement: str | None,
    preferred: str | None,
    lookups: Lookups,
) -> Iterator[tuple[str, str]]:
    yield "daemon", record.name
    yield "launcher", record.launcher
    yield "call", _call_text(record, arguments)
    yield "desired", record.desired
    state = f"{record.status}: {first_line(why)}" if why else str(record.status)
    if record.status is DaemonStatus.RUNNING:
        state += f" for {since(record.started_at, lookups.now())}"
    if record.blocked is not None:
        state += f", but {blocked_text(record.blocked, lookups.now())}"
    if record.desired is Desired.STOPPED and record.node is not None:
        state += " (will stop)"
    yield "status", state
    if record.node is not None:
        yield "node", f"{record.node} (incarnation {record.incarnation})"
        yield "placement", placement or "-"
        yield "process", f"{record.pid or '-'} on {record.host}"
        yield "queue", record.queue or "none: the broker does not allow this node a queue"
        yield "token", str(record.token)
    yield "restarts", str(record.restarts)
    yield "last error", record.error or "-"
    yield "preferred node", preferred or "none: no node takes daemons"


def _call(arguments: str) -> dict[str, Any]:
    """Return the arguments as plain JSON values; other types stay in the form that Celery has written."""
    try:
        args, kwargs = json.loads(arguments)
    except (ValueError, TypeError):
        return {"args": None, "kwargs": None}
    return {"args": args, "kwargs": kwargs}


def _call_text(record: DaemonRecord, arguments: str) -> str:
    call = _call(arguments)
    if call["args"] is None:
        return f"not readable: {arguments}"
    parts = [*map(repr, call["args"]), *(f"{key}={value!r}" for key, value in call["kwargs"].items())]
    return f"{record.launcher}({', '.join(['ctx', *parts])})"
