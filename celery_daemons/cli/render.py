"""Format what the commands print for people: fitted to a terminal, complete in a pipe."""

import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unicodedata import east_asian_width

import click

from celery_daemons.domain.records import BlockedLoop

#: The spaces between two columns.
_GAP: Final = 2
#: Optional columns are left out before any name is shortened to fewer characters than this.
_READABLE: Final = 20
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
#: Columns of sentences, which are shortened at the end.
_PROSE: Final = frozenset(("ERROR", "WHY"))
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR


class Screen:
    """Standard output for people: a terminal of ``width`` columns, or a pipe (``width`` is ``None``)."""

    def __init__(self, *, colour: bool = False, width: int | None = None) -> None:
        self._colour = colour
        self._width = width

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Collection[str] = (),
        optional: Sequence[str] = (),
    ) -> None:
        """Print rows under the column names in ``head``, one line for each.

        The columns named in ``right`` are aligned right and never shortened. On a terminal, the columns in ``optional``
        are left out, the first one first, if names would become unreadable otherwise, and then long names are shortened
        in the middle, and other texts at the end.
        """
        if not rows:
            return
        lines = [[cell(text) for text in line] for line in (head, *rows)]
        kept = list(range(len(head)))
        widths = [max(map(columns, texts)) for texts in zip(*lines, strict=True)]
        if self._width is not None:
            fixed = {i for i, name in enumerate(head) if name in right or name == "STATUS"}
            kept = _kept_columns(head, widths, fixed, optional, self._width)
            room = self._width - sum(widths[i] for i in kept if i in fixed) - _GAP * (len(kept) - 1)
            flexible = [i for i in kept if i not in fixed]
            for i, cap in zip(flexible, caps([widths[i] for i in flexible], room), strict=True):
                widths[i] = cap
        for number, line in enumerate(lines):
            shown = []
            for i in kept:
                text = _fitted(line[i], widths[i], at_end=head[i] in _PROSE)
                blank = " " * (widths[i] - columns(text))
                styled = self._styled(text, number == 0)
                shown.append(blank + styled if head[i] in right else styled + blank)
            self.line((" " * _GAP).join(shown))

    def _styled(self, text: str, is_head: bool) -> str:
        if not self._colour:
            return text
        if is_head:
            return click.style(text, bold=True)
        style = _STYLES.get(text.partition(",")[0])
        return click.style(text, fg=style) if style else text

    def pairs(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Print pairs of name and value; further lines of a value are indented below the first.

        On a terminal, long lines are wrapped between words.
        """
        shown = list(pairs)
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            first, *more = self._wrapped(value, width + _GAP) or [""]
            title = f"{name:<{width}}"
            style = _STYLES.get(name)
            self.line((click.style(title, fg=style, bold=True) if self._colour else title) + f"  {cell(first)}")
            for text in more:
                self.line(" " * (width + 2) + cell(text))

    def line(self, text: str = "") -> None:
        """Print a line."""
        click.echo(text.rstrip(), color=self._colour)

    def _wrapped(self, value: str, indent: int) -> list[str]:
        if self._width is None:
            return value.splitlines()
        room = max(_READABLE, self._width - indent)
        return [
            part
            for text in value.splitlines()
            for part in textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
        ]

    @property
    def width(self) -> int | None:
        """Return the columns of the terminal, ``None`` for a pipe."""
        return self._width


def _kept_columns(
    head: Sequence[str], widths: Sequence[int], fixed: Collection[int], optional: Sequence[str], room: int
) -> list[int]:
    kept = list(range(len(head)))
    for name in optional:
        least = sum(widths[i] if i in fixed else min(widths[i], _READABLE) for i in kept)
        if least + _GAP * (len(kept) - 1) <= room:
            break
        kept.remove(head.index(name))
    return kept


def caps(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many columns each text gets so that all fit into ``room``: the longest are shortened first."""
    if sum(lengths) <= room:
        return list(lengths)
    cap = max((cap for cap in range(1, max(lengths) + 1) if sum(min(n, cap) for n in lengths) <= room), default=1)
    left = max(0, room - sum(min(n, cap) for n in lengths))
    fitted = []
    for length in lengths:
        extra = min(1, left) if length > cap else 0
        left -= extra
        fitted.append(min(length, cap + extra))
    return fitted


def shortened(text: str, width: int) -> str:
    """Return a name in at most ``width`` columns, without the middle: names differ at their ends."""
    return _fitted(text, width, at_end=False)


def _fitted(text: str, width: int, *, at_end: bool) -> str:
    if columns(text) <= width:
        return text
    end = 0 if at_end else (width - 1) // 2
    start = text[: width - 1 - end]
    while columns(start) > width - 1 - end:  # wide characters
        start = start[:-1]
    return f"{start}…{text[len(text) - end :] if end else ''}"


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


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
