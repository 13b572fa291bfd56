"""Types for the identifiers of the domain, and the rule that every name obeys."""

import re
from typing import NewType

from celery_daemons.errors import InvalidName

NodeName = NewType("NodeName", str)
Incarnation = NewType("Incarnation", str)
DaemonName = NewType("DaemonName", str)
LauncherName = NewType("LauncherName", str)
Token = NewType("Token", int)
Epoch = NewType("Epoch", int)

#: Names are parts of Redis keys, queue names, process titles and log lines. Blanks, commas, quotes and control
#: characters would break these.
_ALLOWED = re.compile(r"[A-Za-z0-9._\-:@/+]{1,200}")


def check_name(value: object, kind: str) -> str:
    """Return a ``value`` that obeys the rule for names; raise :exc:`InvalidName` for any other.

    ``kind`` says in the message which name is wrong, for example ``"daemon name"``.
    """
    if isinstance(value, str) and _ALLOWED.fullmatch(value):
        return value
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    raise InvalidName(f"{kind} {shown} is not a valid name: use 1 to 200 characters of A-Z a-z 0-9 . _ - : @ / +")


def daemon_name(value: object) -> DaemonName:
    """Return ``value`` as the name of a daemon. Raises :exc:`InvalidName`."""
    return DaemonName(check_name(value, "daemon name"))


def node_name(value: object) -> NodeName:
    """Return ``value`` as the name of a node, the worker's ``--hostname``. Raises :exc:`InvalidName`."""
    return NodeName(check_name(value, "node name"))


def launcher_name(value: object) -> LauncherName:
    """Return ``value`` as the name of a launcher. Raises :exc:`InvalidName`."""
    return LauncherName(check_name(value, "launcher name"))
