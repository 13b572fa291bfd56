"""The next step for one daemon: the complete decision table."""

from dataclasses import replace

import pytest

from celery_daemons.domain.names import Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.reconcile import Step, next_step
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus

NODE = NodeRow(
    incarnation=Incarnation("i1"),
    status=NodeStatus.UP,
    queue="q",
    spawn_queue="s",
    host="h",
    pid=1,
    weight=1.0,
    labels="",
    launchers="tail",
)
NODES = {NodeName("n1"): NODE}

WANTED = SpecRow(launcher=LauncherName("tail"), arguments="[[],{}]", desired=Desired.RUNNING, version="1")
STOPPED = SpecRow(launcher=LauncherName("tail"), arguments="[[],{}]", desired=Desired.STOPPED, version="1")
REPLACED = SpecRow(launcher=LauncherName("tail"), arguments="[[1],{}]", desired=Desired.RUNNING, version="2")


def on(node: str | None, status: DaemonStatus = DaemonStatus.RUNNING) -> BookRow:
    return BookRow(
        status=status,
        token=Token(1),
        launcher=LauncherName("tail"),
        node=NodeName(node) if node else None,
        incarnation=Incarnation("i1") if node else None,
        version="1",
    )


@pytest.mark.parametrize(
    ("spec", "row", "fits", "step"),
    [
        # The daemon is on no node.
        (WANTED, None, True, (Step.PLACE, "wanted")),
        (WANTED, on(None, DaemonStatus.PENDING), True, (Step.PLACE, "wanted")),
        (WANTED, on(None, DaemonStatus.UNPLACEABLE), True, (Step.PLACE, "wanted")),
        (WANTED, on(None, DaemonStatus.STOPPED), True, (Step.PLACE, "wanted")),
        (REPLACED, on(None, DaemonStatus.PENDING), True, (Step.PLACE, "wanted")),
        (STOPPED, None, True, (Step.REST, "not wanted")),
        (STOPPED, on(None, DaemonStatus.STOPPED), True, (Step.REST, "not wanted")),
        (None, None, True, (Step.REST, "not wanted")),
        (None, on(None, DaemonStatus.PENDING), True, (Step.REST, "not wanted")),
        # Its node is registered.
        (WANTED, on("n1"), True, (Step.REST, "placed")),
        (WANTED, on("n1", DaemonStatus.ASSIGNED), True, (Step.REST, "placed")),
        (WANTED, on("n1", DaemonStatus.BACKOFF), True, (Step.REST, "placed")),
        (WANTED, on("n1", DaemonStatus.FAILED), True, (Step.REST, "placed")),
        (WANTED, on("n1"), False, (Step.RECALL, "its node no longer takes it")),
        (REPLACED, on("n1"), True, (Step.RECALL, "replaced")),
        (STOPPED, on("n1"), True, (Step.RECALL, "stopped")),
        (STOPPED, on("n1"), False, (Step.RECALL, "stopped")),
        (None, on("n1"), True, (Step.RECALL, "forgotten")),
        # Already recalled, for any reason.
        (WANTED, on("n1", DaemonStatus.STOPPING), True, (Step.REST, "stopping")),
        (STOPPED, on("n1", DaemonStatus.STOPPING), True, (Step.REST, "stopping")),
        (None, on("n1", DaemonStatus.STOPPING), False, (Step.REST, "stopping")),
        # Its node is gone.
        (WANTED, on("n9"), True, (Step.SWEEP, "its node is gone")),
        (STOPPED, on("n9"), True, (Step.SWEEP, "its node is gone")),
        (None, on("n9", DaemonStatus.STOPPING), True, (Step.SWEEP, "its node is gone")),
    ],
)
def test_the_next_step(spec: SpecRow | None, row: BookRow | None, fits: bool, step: tuple[Step, str]) -> None:
    assert next_step(spec, row, NODES, fits=fits) == step


@pytest.mark.parametrize(
    ("avoid", "status", "others_fit", "step"),
    [
        ("n1", DaemonStatus.FAILED, True, (Step.RECALL, "failed here, another node can try")),
        ("n1", DaemonStatus.FAILED, False, (Step.REST, "placed")),
        ("n1", DaemonStatus.RUNNING, True, (Step.REST, "placed")),
        # Another node has already tried.
        ("n2", DaemonStatus.FAILED, True, (Step.REST, "placed")),
        (None, DaemonStatus.FAILED, True, (Step.REST, "placed")),
    ],
)
def test_a_failed_daemon_is_recalled_once_another_node_could_try(
    avoid: str | None, status: DaemonStatus, others_fit: bool, step: tuple[Step, str]
) -> None:
    row = replace(on("n1", status), avoid=NodeName(avoid) if avoid else None)

    assert next_step(WANTED, row, NODES, fits=True, others_fit=others_fit) == step


@pytest.mark.parametrize("status", list(DaemonStatus))
@pytest.mark.parametrize("spec", [WANTED, STOPPED, REPLACED, None])
@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("node", ["n1", "n9"])
def test_a_daemon_on_a_node_is_never_placed(status: DaemonStatus, spec: SpecRow | None, fits: bool, node: str) -> None:
    """Syn #44, dapr #9514: no daemon starts elsewhere before its node has released it or was swept."""
    step, _ = next_step(spec, on(node, status), NODES, fits=fits)

    assert step is not Step.PLACE
