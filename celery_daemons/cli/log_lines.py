"""``logs``: show the last log lines of a daemon, and follow them."""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import click

from celery_daemons.cli.common import Command, as_called, daemons_of, json_option, notify, screen_of
from celery_daemons.cli.documents import emit, emit_line
from celery_daemons.cli.render import cell
from celery_daemons.client.node_questions import LogSource, NodeQuestions
from celery_daemons.errors import StoreUnavailable
from celery_daemons.wire.inspection import MOST_LINES
from celery_daemons.wire.log_ring import LogLine

#: Seconds between two attempts while Redis does not answer.
_RETRY_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LogDocument:
    """A log line as ``logs --json`` prints it.

    ``at`` is Unix time in seconds by the clock of the node. ``level`` is that of the record, or ``stdout`` or
    ``stderr`` for what the daemon has printed; ``logger`` is empty then.
    """

    name: str
    node: str
    token: int
    at: float
    level: str
    logger: str
    message: str


@click.command("logs", cls=Command)
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines until Ctrl-C, also when the daemon moves.")
@click.option(
    "--lines",
    type=click.IntRange(0, MOST_LINES),
    default=100,
    show_default=True,
    metavar="N",
    help="How many of the last lines to show.",
)
@json_option
@click.pass_context
def logs(ctx: click.Context, *, name: str, follow: bool, lines: int, as_json: bool) -> None:
    """Show the last log lines of a daemon, oldest first, with what it has printed.

    Each node keeps up to 64 KiB per daemon, as long as its agent runs. If the daemon runs nowhere, the lines come from
    the last node that it was on. Standard error names the node.
    """
    daemons = daemons_of(ctx)
    questions = NodeQuestions(daemons.cluster.store, daemons.lookups)
    first = questions.logs(name, lines=max(1, lines))
    _announce(name, first)
    screen = screen_of(ctx)

    def show(source: LogSource, found: Iterable[LogLine]) -> None:
        for line in found:
            if not as_json:
                for text in _as_text(line):
                    screen.line(text)
            elif follow:
                emit_line(_document(name, source, line))

    shown = first.lines[-lines:] if lines else ()
    if as_json and not follow:
        emit([_document(name, first, line) for line in shown])
        return
    show(first, shown)
    if follow:
        with suppress(KeyboardInterrupt):
            _follow(ctx, questions, name, first, show)


def _follow(ctx: click.Context, questions: NodeQuestions, name: str, last: LogSource, show: object) -> None:
    assert callable(show)
    while True:
        try:
            for source in questions.follow(name, last):
                if source.node != last.node or (source.runs and not last.runs):
                    _announce(name, source)
                show(source, source.lines)
                # A new follower starts after the last line that was shown.
                last = source if source.lines else LogSource(node=source.node, runs=source.runs, lines=last.lines)
        except StoreUnavailable as error:
            notify(as_called(ctx, f"waiting: {error}"))
            time.sleep(_RETRY_PAUSE)


def _announce(name: str, source: LogSource) -> None:
    state = "" if source.runs else ", where it ran last"
    notify(f"daemon {name} on node {source.node}{state}")


def _document(name: str, source: LogSource, line: LogLine) -> LogDocument:
    return LogDocument(
        name=name,
        node=source.node,
        token=line.token,
        at=line.at,
        level=line.level,
        logger=line.logger,
        message=line.message,
    )


def _as_text(line: LogLine) -> Iterable[str]:
    when = datetime.fromtimestamp(line.at, tz=UTC).astimezone()
    head = f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03} {line.level:<7}"
    first, *rest = line.message.splitlines() or [""]
    yield f"{head} {cell(first)}"
    for more in rest:
        yield f"    {cell(more)}"
