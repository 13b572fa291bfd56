"""Whatever nodes, monitors, users and accidents do in whatever order, the invariants of the protocol hold."""

import fakeredis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.unit.protocol.machine import Protocol
from tests.unit.protocol.world import virtual_time


# Some ten seconds if all is well. If not, the time is spent on finding the shortest story that goes wrong.
@pytest.mark.timeout(600)
def test_no_interleaving_breaks_an_invariant() -> None:
    """Attacks invariants 1, 2, 3, 5 and 6 of the design, with virtual time and the scripts themselves."""
    Protocol.client = fakeredis.FakeRedis()
    with virtual_time() as Protocol.clock:
        run_state_machine_as_test(
            Protocol,
            settings=settings(
                max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )
