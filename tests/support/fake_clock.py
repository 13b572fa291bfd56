"""A wall clock that a test sets, for one server; the server's monotonic clock stays as it is."""

from pathlib import Path

import libfaketime


class FakeClock:
    """The wall clock of a process that is started with :attr:`env`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "faketime"
        #: Seconds by which the clock is ahead of the real time.
        self.ahead = 0.0
        self.set(0.0)

    @property
    def env(self) -> dict[str, str]:
        """Return the environment for the process."""
        library = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """Set the clock to so many seconds ahead of the real time, or behind it by a negative number."""
        # Replaced, because the process reads the file whenever it reads the clock.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.3f}\n")
        new.replace(self._file)
        self.ahead = seconds

    def step(self, seconds: float) -> None:
        """Set the clock forward by so many seconds, or back by a negative number."""
        self.set(self.ahead + seconds)
