"""Whatever nodes, monitors, users and accidents do in whatever order, the invariants of the protocol hold."""

import logging

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.protocol.clock import virtual_time
from tests.unit.protocol.double import Double
from tests.unit.protocol.machine import Protocol
from tests.unit.protocol.story import A, B, Story, X
from tests.unit.protocol.world import SLOWEST, Broken


# Ten seconds if all is well. If not, the time is spent on finding the shortest story that goes wrong.
@pytest.mark.timeout(900)
def test_no_interleaving_breaks_an_invariant() -> None:
    """Attacks invariants 1, 2, 3, 5 and 6 of the design, with virtual time and the scripts themselves."""
    run(Protocol, examples=80)


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_none_of_many_interleavings_breaks_an_invariant() -> None:
    """Attacks the same invariants for some five minutes."""
    run(Protocol, examples=3500)


@pytest.mark.parametrize("rate", [SLOWEST, 0.5])
def test_the_margin_covers_slow_clocks_and_no_slower_ones(rate: float) -> None:
    """The margin is the only requirement on clocks, and it is needed: with a slower clock two runs overlap."""
    with virtual_time() as clock:
        # Given a node that loses touch with Redis, and whose clock is slow
        story = Story(Double(), clock, rate=rate)
        story.outlast(story.a)

        # When the node is swept, and its daemon starts elsewhere as soon as it can
        story.monitor.sweep(A)
        story.monitor.assign(X, B)

        # Then it has stopped by itself, unless its clock is slower than the margin covers
        def starts_on_b() -> None:
            story.b.look()
            story.holds()

        if rate == SLOWEST:
            starts_on_b()
            assert X in story.b.running
        else:
            with pytest.raises(Broken):
                starts_on_b()


def run(machine: type[Protocol], *, examples: int) -> None:
    """Try interleavings of a machine's rules."""
    machine.double = Double()
    logging.disable()
    try:
        with virtual_time() as machine.clock:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=40,
                    deadline=None,
                    derandomize=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
    finally:
        logging.disable(logging.NOTSET)
