"""Parts of messages that several calls use."""

from collections.abc import Collection
from typing import Final

#: The most names that a message lists.
_NAMES_LISTED: Final = 5


def listed(names: Collection[str]) -> str:
    """Return the number of some daemons and the first few names, for a message."""
    shown = ", ".join(sorted(names)[:_NAMES_LISTED])
    more = ", …" if len(names) > _NAMES_LISTED else ""
    return f"daemon {shown}" if len(names) == 1 else f"{len(names)} daemons ({shown}{more})"
