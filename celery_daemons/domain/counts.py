"""Count daemons by desired state, status and launcher, from the records and from what the scripts have counted."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from celery_daemons.domain.names import DaemonName, Incarnation
from celery_daemons.domain.records import BookRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired

#: Statuses of daemons that need attention, with their numbers in the index; as in ``_daemons.lua``.
UNHEALTHY: Final = {DaemonStatus.BACKOFF: 1, DaemonStatus.FAILED: 2, DaemonStatus.UNPLACEABLE: 3}

#: The name of the number of daemons that should run, beside the numbers by status.
DESIRED: Final = "desired"


def count_field(spec: SpecRow | None, row: BookRow | None) -> str | None:
    """Return the field under which the scripts count a daemon, ``None`` for one with neither a spec nor a node.

    The field is ``wanted,status,incarnation,launcher``, as ``cell_of`` in ``_daemons.lua`` writes it.
    """
    if row is not None and row.node is not None:
        incarnation = "?" if row.incarnation is None else row.incarnation
        return f"{row.unwanted or Desired.RUNNING},{row.status},{incarnation},{row.launcher}"
    if spec is None:
        return None
    status = DaemonStatus.PENDING
    if spec.desired is Desired.STOPPED:
        status = DaemonStatus.STOPPED
    elif row is not None and row.status is DaemonStatus.UNPLACEABLE:
        status = row.status
    return f"{spec.desired},{status},,{spec.launcher}"


def counted(specs: Mapping[DaemonName, SpecRow], book: Mapping[DaemonName, BookRow]) -> Counter[str]:
    """Return how many daemons each field counts."""
    fields = (count_field(specs.get(name), book.get(name)) for name in specs.keys() | book.keys())
    return Counter(field for field in fields if field is not None)


def unhealthy(book: Mapping[DaemonName, BookRow]) -> dict[DaemonName, int]:
    """Return the daemons that need attention, with the numbers of their statuses."""
    return {name: UNHEALTHY[row.status] for name, row in book.items() if row.status in UNHEALTHY}


def is_marked_wrongly(spec: SpecRow | None, row: BookRow) -> bool:
    """Return whether an entry does not say as its spec does whether the daemon is still wanted."""
    if row.node is None:
        return row.unwanted is not None
    wanted = None if spec is None else spec.desired
    return row.unwanted != {None: "forgotten", Desired.STOPPED: "stopped", Desired.RUNNING: None}[wanted]


def with_specs(counts: Mapping[str, int]) -> int:
    """Return how many of the counted daemons have a spec."""
    return sum(count for field, count in counts.items() if not field.startswith("forgotten,"))


def no_daemons() -> dict[str, int]:
    """Return numbers by status that are all 0."""
    return {DESIRED: 0, **{str(status): 0 for status in DaemonStatus}}


def by_launcher(counts: Mapping[str, int], live: Collection[Incarnation]) -> dict[str, dict[str, int]]:
    """Return numbers by launcher and status, given the incarnations with a lease. Forgotten daemons do not count."""
    found: dict[str, dict[str, int]] = {}
    for field, count in counts.items():
        wanted, status, incarnation, launcher = (*field.split(",", 3), "", "", "")[:4]
        if wanted not in tuple(Desired) or count <= 0:
            continue
        if incarnation and incarnation not in live:
            # The node is lost: the entry is out of date, and the monitor has yet to place the daemon again.
            status = DaemonStatus.PENDING if wanted == Desired.RUNNING else DaemonStatus.STOPPED
        numbers = found.setdefault(launcher, no_daemons())
        numbers[DESIRED] += count if wanted == Desired.RUNNING else 0
        numbers[status] = numbers.get(status, 0) + count
    return dict(sorted(found.items()))


def total(numbers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the sums of numbers by status."""
    sums = no_daemons()
    for some in numbers:
        for status, count in some.items():
            sums[status] = sums.get(status, 0) + count
    return sums
