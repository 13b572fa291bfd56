"""Read the numbers of daemons that the scripts keep, with everything that makes them valid, and repair them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from celery_daemons.domain.names import DaemonName, Epoch, Incarnation
from celery_daemons.domain.records import Leader
from celery_daemons.store.codec import encode
from celery_daemons.store.keys import Keys
from celery_daemons.store.queries import NodeRows, decode_leader, read_nodes
from celery_daemons.store.script import ScriptCall, text

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The state of the cluster at one moment, without single daemons.

    ``counts`` are as the scripts keep them, ``nodes`` the records of nodes with the milliseconds left of each lease.
    ``position`` is the id of the newest entry of the journal, empty if there is none. ``scans`` has undecoded records.
    """

    position: str
    paused: bool
    leader: Leader | None
    counts: dict[str, int]
    nodes: NodeRows
    scans: dict[str, bytes]

    @property
    def live(self) -> frozenset[Incarnation]:
        """Return the incarnations with a lease."""
        return frozenset(row.incarnation for row, lease_ms in self.nodes.values() if lease_ms > 0)

    def scans_as(self, kind: type[T]) -> dict[str, T]:
        """Return the result of each launcher's last recovery scan, decoded as ``kind``."""
        return {launcher: msgspec.json.decode(record, type=kind) for launcher, record in self.scans.items()}


def summary(keys: Keys) -> ScriptCall[Summary]:
    """Read the summary of the cluster, in a time that does not depend on the number of daemons."""

    def decode(reply: Any) -> Summary:
        now, position, paused, leader, counts, nodes, leases, scans = reply
        return Summary(
            position=text(position),
            paused=bool(paused),
            leader=decode_leader(leader),
            counts={text(field): _number(count) for field, count in _pairs(counts)},
            nodes=read_nodes(_pairs(nodes), _pairs(leases), int(now)),
            scans={text(launcher): record for launcher, record in _pairs(scans)},
        )

    return ScriptCall(
        "summary",
        (keys.counts, keys.nodes, keys.leases, keys.monitor, keys.scans, keys.cluster, keys.journal),
        (),
        decode,
    )


def repair(
    keys: Keys, epoch: Epoch, changes: Sequence[tuple[str, int]], names: Sequence[DaemonName]
) -> ScriptCall[bool]:
    """Add to the counts, and correct the marks and the index of up to 1,000 daemons; false if the epoch is over."""
    return ScriptCall(
        "repair_counts",
        (keys.monitor, keys.specs, keys.book, keys.counts, keys.unhealthy),
        (str(epoch), encode(changes), encode(names)),
        bool,
    )


def _number(raw: bytes) -> int:
    """Decode a count; a count that is not a number, which was written by hand, counts as 0."""
    return int(raw) if raw.removeprefix(b"-").isdigit() else 0


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)
