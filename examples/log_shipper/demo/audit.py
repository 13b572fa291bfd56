"""Compare every written line with every shipped line: lost, doubled, foreign, out of order, under a lower token."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

#: How many lines a complaint quotes.
_QUOTED = 3


class Shipped(NamedTuple):
    """A line in the stream, with the fencing token of the daemon that shipped it."""

    line: bytes
    token: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one file; each list holds the lines that are wrong in that way."""

    name: str
    written: int
    shipped: int
    tokens: int
    lost: list[bytes]
    doubled: list[bytes]
    foreign: list[bytes]
    disordered: list[bytes]
    falls: list[bytes]

    @property
    def clean(self) -> bool:
        """Return whether every line was shipped exactly once, in order, under growing tokens."""
        return not (self.lost or self.doubled or self.foreign or self.disordered or self.falls)

    @property
    def complaints(self) -> list[str]:
        """Return one sentence per kind of error, with the first lines concerned."""
        found = (
            ("lost", self.lost),
            ("shipped more than once", self.doubled),
            ("shipped but never written", self.foreign),
            ("shipped out of order", self.disordered),
            ("shipped under a token lower than the line before", self.falls),
        )
        return [f"{self.name}: {len(lines)} lines {what}: {_quote(lines)}" for what, lines in found if lines]


def audit(name: str, written: Sequence[bytes], shipped: Sequence[Shipped]) -> Verdict:
    """Compare the lines of one file, all different, with its shipped lines."""
    place = {line: number for number, line in enumerate(written)}
    times = Counter(entry.line for entry in shipped)
    first_seen = [line for line in dict.fromkeys(entry.line for entry in shipped) if line in place]
    return Verdict(
        name=name,
        written=len(written),
        shipped=len(shipped),
        tokens=len({entry.token for entry in shipped}),
        lost=[line for line in written if line not in times],
        doubled=[line for line, count in times.items() if count > 1 and line in place],
        foreign=[line for line in times if line not in place],
        disordered=[after for before, after in pairwise(first_seen) if place[after] < place[before]],
        falls=[after.line for before, after in pairwise(shipped) if after.token < before.token],
    )


def _quote(lines: Sequence[bytes]) -> str:
    shown = ", ".join(repr(line.decode(errors="replace")[:60]) for line in lines[:_QUOTED])
    return shown + (", …" if len(lines) > _QUOTED else "")
