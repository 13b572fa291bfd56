"""Show progress: a live table on a terminal, a periodic line into a pipe, and one line per event on both."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from celery_daemons import Node, NodeStatus
from examples.log_shipper.demo.audit import Verdict
from examples.log_shipper.demo.watch import Row

#: Seconds between two updates of the table on a terminal, and between two lines into a pipe.
_PICTURE: Final = 0.25
_LINE: Final = 2.0
#: Width of the output into a pipe, in columns.
_PIPE_WIDTH: Final = 110


class Screen:
    """A context manager that shows the live table between its start and its end."""

    def __init__(self) -> None:
        terminal = Console().is_terminal
        self._console = Console(width=None if terminal else _PIPE_WIDTH, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if terminal else None
        self._began = time.monotonic()
        self._due = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.freeze()

    @property
    def elapsed(self) -> float:
        """Return the seconds since the demo began."""
        return time.monotonic() - self._began

    @property
    def due(self) -> bool:
        """Return whether it is time for another update."""
        return time.monotonic() >= self._due

    def event(self, text: str) -> None:
        """Print an event with its time."""
        self._print(f"{self.elapsed:5.1f} s  {text}")

    def say(self, text: str) -> None:
        """Print a line without a time."""
        self._print(text)

    def show(self, rows: Sequence[Row], nodes: Sequence[Node]) -> None:
        """Draw the picture, or print the line."""
        self._due = time.monotonic() + (_PICTURE if self._live is not None else _LINE)
        if self._live is not None:
            self._live.update(_picture(rows, nodes), refresh=True)
            return
        written, shipped = sum(row.written for row in rows), sum(row.shipped for row in rows)
        self._print(
            f"{self.elapsed:5.1f} s  · {_census(nodes)} · written {written}, shipped {shipped}, "
            f"behind {max(0, written - shipped)}"
        )

    def verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Print the outcome of the audit, below the table."""
        self.freeze()
        table = Table(title="The audit of every line")
        table.add_column("file", no_wrap=True)
        for title in ("written", "shipped", "lost", "doubled", "foreign", "disordered", "tokens", "fallen"):
            table.add_column(title, justify="right")
        for one in verdicts:
            wrong = (one.lost, one.doubled, one.foreign, one.disordered)
            numbers = (one.written, one.shipped, *map(len, wrong), one.tokens, len(one.falls))
            table.add_row(one.name, *map(str, numbers), style=None if one.clean else "red")
        self._console.print(table)

    def freeze(self) -> None:
        """Stop updating, and leave the table as it is."""
        self._due = float("inf")
        if self._live is not None:
            self._live.stop()

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _picture(rows: Sequence[Row], nodes: Sequence[Node]) -> Table:
    table = Table(caption=_census(nodes))
    # Wide enough from the start: a table that changes its width flickers.
    for title, width in (("log file", 8), ("node", 7), ("status", 8)):
        table.add_column(title, no_wrap=True, min_width=width)
    for title, width in (("token", 16), ("written", 7), ("shipped", 7), ("lag", 5)):
        table.add_column(title, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        address = row.address
        where = (address.node, address.status, str(address.token)) if address else ("–", "–", "–")
        lag = max(0, row.written - row.shipped)
        style = None if address else "yellow"
        table.add_row(row.name, *where, str(row.written), str(row.shipped), str(lag), style=style)
    return table


def _census(nodes: Sequence[Node]) -> str:
    """Return the number of daemons on each node, as text."""
    counts = []
    for node in nodes:
        state = "" if node.status is NodeStatus.UP else f" ({node.status})"
        counts.append(f"{node.name} {node.daemons}{state}")
    return ", ".join(counts) or "no node yet"
