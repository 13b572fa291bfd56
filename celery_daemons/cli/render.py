"""What the commands print for people: tables that fit the width of a terminal, or full-width tables in a pipe."""

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import click

from celery_daemons.domain.records import BlockedLoop

#: The most rows that are fitted to the terminal: fitting more would take longer than reading them from Redis.
_MAX_FITTED: Final = 2000
_STYLES: Final = {
    "up": "green",
    "running": "green",
    "draining": "yellow",
    "pending": "yellow",
    "backoff": "yellow",
    "lost": "red",
    "failed": "red",
    "unplaceable": "red",
    "hint": "yellow",
    "problem": "red",
    "blocked": "red",
    "warning": "yellow",
}
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


class Screen:
    """Standard output for people: a terminal of ``width`` columns, or a pipe (``width`` is ``None``)."""

    def __init__(self, *, colour: bool = False, width: int | None = None) -> None:
        self._colour = colour
        self._width = width

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
        """Print rows under the column names in ``head``; the columns named in ``right`` are aligned right."""
        if not rows:
            return
        if self._width is None or len(rows) > _MAX_FITTED:
            self._plain([head, *rows], [name in right for name in head])
        else:
            self._fitted(head, rows, right)

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print pairs of name and value; further lines of a value are indented below the first."""
        shown = list(pairs)
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            first, *more = value.splitlines() or [""]
            title = f"{name:<{width}}"
            style = _STYLES.get(name)
            self.line((click.style(title, fg=style, bold=True) if self._colour else title) + f"  {cell(first)}")
            for text in more:
                self.line(" " * (width + 2) + cell(text))

    def line(self, text: str = "") -> None:
        """Print a line."""
        click.echo(text.rstrip(), color=self._colour)

    def _plain(self, lines: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
        cells = [[cell(text) for text in line] for line in lines]
        widths = [max(len(text) for text in column) for column in zip(*cells, strict=True)]
        for line in cells:
            columns = zip(line, widths, right, strict=True)
            self.line("  ".join(text.rjust(width) if flush else text.ljust(width) for text, width, flush in columns))

    def _fitted(self, head: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[str]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for name in head:
            # Folded rather than truncated, so that a name can be copied.
            table.add_column(name, overflow="fold", justify="right" if name in right else "left")
        for row in rows:
            table.add_row(*(Text(text, style=_STYLES.get(text.partition(",")[0], "")) for text in map(cell, row)))
        console = _console(sys.stdout, colour=self._colour, width=self._width)
        with console.capture() as captured:
            console.print(table)
        for line in captured.get().splitlines():
            self.line(line)


def cell(text: str) -> str:
    """Return text on a single line; control characters, which could drive the terminal, are replaced."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.expandtabs(1).replace("\n", " "))


def first_line(text: str | None) -> str:
    """Return the first line of a text, or a dash if there is none."""
    return next(iter((text or "").strip().splitlines()), "-")


def age(seconds: float) -> str:
    """Return a time span in the two largest units: ``45s``, ``3m12s``, ``2h05m``, ``4d03h``."""
    whole = max(0, int(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02}h"


def since(started_at: float | None, now: float) -> str:
    """Return the time from ``started_at`` to ``now``, or a dash for something that has not started."""
    return age(now - started_at) if started_at else "-"


def blocked_text(loop: BlockedLoop, now: float) -> str:
    """Return since when an event loop is blocked, and by which daemon."""
    by = f"daemon {loop.by}" if loop.by is not None else "code outside of daemons"
    return f"event loop of process {loop.pid} blocked for {since(loop.since, now)} by {by}"


def plural(count: int, what: str) -> str:
    """Return a count with a noun: ``1 node``, ``2 nodes``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def tally(counts: Mapping[str, int], *, always: Collection[str] = ()) -> str:
    """Return counts by status as text, without zeros unless in ``always``: ``10 running, 2 failed``."""
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count or status in always)


@contextmanager
def spinner(message: str) -> Iterator[None]:
    """Show a spinner with a message on standard error during the ``with`` block."""
    with _console(sys.stderr, colour=True, width=None).status(cell(message)):
        yield


def _console(file: Any, *, colour: bool, width: int | None) -> Any:
    from rich.console import Console

    return Console(
        file=file,
        width=width,
        force_terminal=colour,
        color_system="auto" if colour else None,
        no_color=not colour,
        markup=False,
        highlight=False,
        emoji=False,
    )
