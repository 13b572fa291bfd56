"""The identifiers of the domain: types that keep them apart, and the rule that all names obey."""

import re
from typing import NewType

from celery_daemons.errors import InvalidName

NodeName = NewType("NodeName", str)
Incarnation = NewType("Incarnation", str)
DaemonName = NewType("DaemonName", str)
LauncherName = NewType("LauncherName", str)
Token = NewType("Token", int)
Epoch = NewType("Epoch", int)

#: Names end up in Redis keys, queue names, process titles and log lines: no blanks, commas, quotes or controls.
_ALLOWED = re.compile(r"[A-Za-z0-9._\-:@/+]{1,200}")


def check_name(value: object, what: str) -> str:
    """Return ``value`` if it obeys the rule for names, else raise :exc:`InvalidName` that says ``what`` it was."""
    if isinstance(value, str) and _ALLOWED.fullmatch(value):
        return value
    shown = repr(value)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    raise InvalidName(f"{what} {shown} is not a valid name: use 1 to 200 characters of A-Z a-z 0-9 . _ - : @ / +")


def daemon_name(value: object) -> DaemonName:
    """Check the name of a daemon."""
    return DaemonName(check_name(value, "daemon name"))


def node_name(value: object) -> NodeName:
    """Check the name of a node; a Celery worker chooses it with ``--hostname``."""
    return NodeName(check_name(value, "node name"))


def launcher_name(value: object) -> LauncherName:
    """Check the name of a launcher."""
    return LauncherName(check_name(value, "launcher name"))
