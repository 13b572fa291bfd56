"""Append numbered lines to log files, which rotate: ``python -m examples.log_shipper.writer FOLDER NAME…``."""

import argparse
import logging
import time
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path

#: Seconds between two lines of a file.
PAUSE = 0.2
#: A file is rotated at this size, and this many rotated files stay: enough for some hours without a worker.
MAX_BYTES = 1024 * 1024
KEPT = 5


class NumberedLog:
    """A log file whose lines count up. The numbers continue after a restart."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._next = last_number(path) + 1
        self._handler = RotatingFileHandler(path, maxBytes=max_bytes, backupCount=KEPT)

    def write(self) -> None:
        """Append one line."""
        message = f"{self._next} request served"
        self._handler.emit(logging.makeLogRecord({"msg": message}))
        self._next += 1

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def last_number(path: Path) -> int:
    """Return the number of the last line of a file, or of the file rotated last; 0 if there is none."""
    for file in (path, path.with_name(f"{path.name}.1")):
        if file.exists() and (lines := file.read_text().split("\n")[:-1]):
            return int(lines[-1].split()[0])
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Write until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="+")
    options = parser.parse_args(arguments)
    logs = [NumberedLog(options.folder / f"{name}.log") for name in options.names]
    print(f"writing a line every {PAUSE:g} s to each of {len(logs)} files in {options.folder}", flush=True)
    while True:
        for log in logs:
            log.write()
        time.sleep(PAUSE)


if __name__ == "__main__":
    main()
