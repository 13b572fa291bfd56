"""The folder for the sockets of an agent's processes."""

import os
import tempfile
from typing import Final

#: Characters in the path of the folder that holds the new one. The kernel allows 108 for a whole path, and
#: multiprocessing appends parts of its own.
_LONGEST: Final = 40
#: Where else to try if ``TMPDIR`` is too long or not writable.
_FALLBACKS: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp creates a folder that only this user reads


def new_socket_folder() -> str:
    """Create a folder with a short path, even if ``TMPDIR`` is long.

    Raises OSError, with the folders that were tried, if none of them can be used.
    """
    tried = []
    for parent in dict.fromkeys((_usual(), os.environ.get("XDG_RUNTIME_DIR"), *_FALLBACKS)):
        if not parent:
            continue
        if len(parent) > _LONGEST:
            tried.append(f"{parent} (longer than {_LONGEST} characters)")
            continue
        try:
            return tempfile.mkdtemp(prefix="celery-daemons-", dir=parent)
        except OSError as error:
            tried.append(f"{parent} ({error.strerror})")
    raise OSError(
        f"no folder for sockets can be created in {', '.join(tried)}; make one of them writable, or set TMPDIR to a "
        f"writable folder whose path has at most {_LONGEST} characters"
    )


def _usual() -> str | None:
    try:
        return tempfile.gettempdir()
    except OSError:
        # No usual folder is writable.
        return None
