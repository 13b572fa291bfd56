"""Virtual time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

START_US = 1_800_000_000_000_000


@dataclass(slots=True)
class Clock:
    """The time of all processes, and how far the server's clock was set forward from it; both in microseconds.

    Time is counted since 1970. The clock of an agent may also run at another rate.
    """

    now: int = START_US
    ahead: int = 0

    @property
    def server(self) -> int:
        """Return the time that the server's clock shows."""
        return self.now + self.ahead


@contextmanager
def virtual_time() -> Iterator[Clock]:
    """Let the double of the server read the clock that is given."""
    clock = Clock()
    with mock.patch("time.time", lambda: clock.server / 1_000_000):  # noqa: PT008 - it changes
        yield clock
