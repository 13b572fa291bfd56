"""Virtual time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

START_US = 1_800_000_000_000_000


@dataclass(slots=True)
class Clock:
    """Microseconds since 1970, everywhere."""

    now: int = START_US


@contextmanager
def virtual_time() -> Iterator[Clock]:
    """Let the double of the server read the clock that is given."""
    clock = Clock()
    with mock.patch("time.time", lambda: clock.now / 1_000_000):  # noqa: PT008 - it changes
        yield clock
