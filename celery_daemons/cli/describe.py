"""``describe``: all that is known of one daemon."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import click

from celery_daemons.cli.documents import emit, events_of
from celery_daemons.cli.events import EVERYTHING, event_line
from celery_daemons.cli.render import cell, first_line, since
from celery_daemons.cli.session import Command, as_called, daemons_of, json_option, prog, screen_of
from celery_daemons.client.cluster_client import ClusterClient
from celery_daemons.domain.records import DaemonRecord
from celery_daemons.domain.states import DaemonStatus, Desired
from celery_daemons.errors import DaemonsError

#: The last events of a daemon that are shown.
_SHOWN: Final = 10


@click.command("describe", cls=Command)
@click.argument("name")
@json_option
@click.pass_context
def describe(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """All that is known of one daemon: what is wanted, where it is, what befell it."""
    cluster = daemons_of(ctx).cluster
    record = cluster.record(name)
    arguments = cluster.arguments(name)
    if record is None or arguments is None:
        raise DaemonsError(f"no daemon {name} is known; `{prog(ctx)} list` shows those that are")
    happened = [event for entry in cluster.events(last=EVERYTHING) for event in events_of(entry) if event.name == name]
    latest = happened[-_SHOWN:]
    why = _why(record, cluster)
    preferred, placement, trace = cluster.pick_node(name), cluster.why_there(name), cluster.trace(name)
    why = as_called(ctx, why) if why else None
    if as_json:
        call = _call(arguments)
        told = {"why": why, "placement": placement, "preferred_node": preferred, "traceback": trace, "events": latest}
        emit({**asdict(record), **call, **told})
        return
    screen = screen_of(ctx)
    screen.pairs(_pairs(record, arguments, why, placement, preferred, cluster))
    if trace:
        screen.line()
        screen.line("traceback of the last error")
        for line in trace.rstrip().splitlines():
            screen.line(f"  {cell(line)}")
    screen.line()
    screen.line("last events" if latest else "no events: the journal goes no further back")
    for event in latest:
        screen.line(f"  {event_line(event)}")


def _why(record: DaemonRecord, cluster: ClusterClient) -> str | None:
    """Why it is not running, unless it is or is on its way."""
    if record.status in (DaemonStatus.BACKOFF, DaemonStatus.FAILED, DaemonStatus.UNPLACEABLE):
        return record.error
    return cluster.why_not(record.name) if record.node is None else None


def _pairs(
    record: DaemonRecord,
    arguments: str,
    why: str | None,
    placement: str | None,
    preferred: str | None,
    cluster: ClusterClient,
) -> Iterator[tuple[str, str]]:
    yield "daemon", record.name
    yield "launcher", record.launcher
    yield "call", _shown(record, arguments)
    yield "desired", record.desired
    state = f"{record.status}: {first_line(why)}" if why else str(record.status)
    if record.status is DaemonStatus.RUNNING:
        state += f" for {since(record.started_at, cluster.now())}"
    if record.desired is Desired.STOPPED and record.node is not None:
        state += " (about to stop)"
    yield "status", state
    if record.node is not None:
        yield "node", f"{record.node} (incarnation {record.incarnation})"
        yield "why there", placement or "-"
        yield "process", f"{record.pid or '-'} on {record.host}"
        yield "queue", str(record.queue)
        yield "token", str(record.token)
    yield "restarts", str(record.restarts)
    yield "last error", record.error or "-"
    yield "the ring", f"prefers {preferred}" if preferred else "is empty: no node takes daemons"


def _call(arguments: str) -> dict[str, Any]:
    """The arguments as JSON holds them, with the types that Celery writes into it left as they are."""
    try:
        args, kwargs = json.loads(arguments)
    except (ValueError, TypeError):
        return {"args": None, "kwargs": None}
    return {"args": args, "kwargs": kwargs}


def _shown(record: DaemonRecord, arguments: str) -> str:
    call = _call(arguments)
    if call["args"] is None:
        return f"cannot be read: {arguments}"
    parts = [*map(repr, call["args"]), *(f"{key}={value!r}" for key, value in call["kwargs"].items())]
    return f"{record.launcher}({', '.join(['ctx', *parts])})"
