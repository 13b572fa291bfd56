"""Whatever nodes, monitors, users and accidents do in whatever order, the invariants of the protocol hold."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.protocol.clock import virtual_time
from tests.unit.protocol.double import Double
from tests.unit.protocol.machine import Protocol
from tests.unit.protocol.story import A, B, Story, X
from tests.unit.protocol.world import SLOWEST, Broken


# Some ten seconds if all is well. If not, the time is spent on finding the shortest story that goes wrong.
@pytest.mark.timeout(600)
def test_no_interleaving_breaks_an_invariant() -> None:
    """Attacks invariants 1, 2, 3, 5 and 6 of the design, with virtual time and the scripts themselves."""
    run(Protocol)


@pytest.mark.parametrize("rate", [SLOWEST, 0.5])
def test_the_margin_covers_slow_clocks_and_no_slower_ones(rate: float) -> None:
    """The one thing that the protocol asks of clocks, it does ask: beyond the margin two runs overlap."""
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


def run(machine: type[Protocol]) -> None:
    """Try interleavings of a machine's rules."""
    machine.double = Double()
    with virtual_time() as machine.clock:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
