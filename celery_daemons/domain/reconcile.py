"""What to do about one daemon: the difference between its spec and its entry in the book, as a pure function."""

from collections.abc import Mapping
from enum import Enum

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired


class Step(Enum):
    """What the monitor does next about a daemon."""

    REST = "rest"  #: nothing: it is as it should be, or the node is at work on it
    PLACE = "place"  #: choose a node and assign it
    RECALL = "recall"  #: ask its node to stop and release it
    SWEEP = "sweep"  #: its node is gone: free what that node left


def next_step(
    spec: SpecRow | None,
    row: BookRow | None,
    nodes: Mapping[NodeName, NodeRow],
    *,
    fits: bool,
    others_fit: bool = False,
) -> tuple[Step, str]:
    """Say what to do and why; ``fits`` tells if the node it is on may keep it, ``others_fit`` if another could take it.

    A daemon that is on a node is never placed anew from here: its node releases it, or its node is swept, first.
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
            return Step.RECALL, "moved" if spec.target or spec.avoid else "replaced"
        if not fits:
            return Step.RECALL, "its node no longer takes it"
        if others_fit and row.status is DaemonStatus.FAILED and row.avoid == row.node:
            # There was no other node when this one gave it up.
            return Step.RECALL, "failed here, another node can try"
        return Step.REST, "placed"
    if spec is None or spec.desired is Desired.STOPPED:
        return Step.REST, "not wanted"
    return Step.PLACE, "wanted"
