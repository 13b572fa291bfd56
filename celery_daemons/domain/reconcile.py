"""Decide the next step for a daemon from the spec and the entry in the address book, as a pure function."""

from collections.abc import Mapping
from enum import Enum
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired

#: Why a daemon is recalled from a node although it should run.
MOVED: Final = "moved"
REPLACED: Final = "replaced"
LEFT: Final = "its node no longer takes it"
FAILED_HERE: Final = "failed here, another node can try"


class Step(Enum):
    """The next action of the monitor for a daemon."""

    REST = "rest"  #: nothing: the daemon is as it should be, or its node is busy with it
    PLACE = "place"  #: choose a node and assign it
    RECALL = "recall"  #: ask its node to stop and release the daemon
    SWEEP = "sweep"  #: its node is gone: free the daemons of that node


def next_step(
    spec: SpecRow | None,
    row: BookRow | None,
    nodes: Mapping[NodeName, NodeRow],
    *,
    fits: bool,
    others_fit: bool = False,
) -> tuple[Step, str]:
    """Return the next step and the reason.

    ``fits`` says whether its node may keep the daemon, ``others_fit`` whether another node could take it. A daemon on a
    node is never placed elsewhere directly: first its node releases the daemon, or the node is swept.
    """
    placed = row is not None and row.node is not None
    if placed and row is not None and row.node is not None:
        if row.node not in nodes:
            return Step.SWEEP, "its node is gone"
        if row.status is DaemonStatus.STOPPING:
            return Step.REST, "stopping"
        if spec is None:
            return Step.RECALL, "forgotten"
        if spec.desired is Desired.STOPPED:
            return Step.RECALL, "stopped"
        if row.version != spec.version:
            return Step.RECALL, MOVED if spec.target or spec.avoid else REPLACED
        if not fits:
            return Step.RECALL, LEFT
        if others_fit and row.status is DaemonStatus.FAILED and row.avoid == row.node:
            # No other node fitted when this one gave up on the daemon.
            return Step.RECALL, FAILED_HERE
        return Step.REST, "placed"
    if spec is None or spec.desired is Desired.STOPPED:
        return Step.REST, "not wanted"
    return Step.PLACE, "wanted"
