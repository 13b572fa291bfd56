"""In every order of a few accidents, as far as the time suffices, the invariants hold; and a defect would be found."""

import logging
from collections.abc import Iterator

import pytest

from celery_daemons.monitor.lease_clock import LeaseClock
from celery_daemons.node.supervision.supervisor import Supervisor
from tests.unit.protocol.clock import Clock, virtual_time
from tests.unit.protocol.double import Double
from tests.unit.protocol.explore import explore, explore_all
from tests.unit.protocol.mistakes import plant_in_method, plant_in_script
from tests.unit.protocol.scene import Loss, Rations
from tests.unit.protocol.world import Broken

#: A mistake in Lua, as in test_protocol_stories.py, and the loss and the accidents that the world has to meet it.
MISTAKES = [
    # A daemon that starts again keeps the token of the run before.
    pytest.param("claim", "record.token = text(mint(KEYS[5], 1))", "", "data", Rations(crashes=1), id="claim"),
    # A late release takes a daemon from the run after the one that it is about.
    pytest.param(
        "release",
        "elseif record.token == item.token",
        "elseif true",
        "data",
        Rations(users=1, messages=1),
        id="release",
        marks=pytest.mark.heavy,
    ),
]


@pytest.fixture(scope="module")
def double() -> Double:
    return Double()


@pytest.fixture
def clock() -> Iterator[Clock]:
    logging.disable()
    with virtual_time() as clock:
        yield clock
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(600)
def test_no_order_of_few_accidents_breaks_an_invariant(
    double: Double, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attacks invariants 1, 2, 3 and 5 of the design, for some seconds of processor time."""
    for line in explore_all(double, clock, seconds=5):
        with capsys.disabled():
            print(f"\n{line}", end="")  # noqa: T201 - how far it came is the result


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_no_order_of_few_accidents_breaks_an_invariant_in_two_minutes(
    double: Double, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attacks invariants 1, 2, 3 and 5 of the design, for two minutes of processor time."""
    for line in explore_all(double, clock, seconds=120):
        with capsys.disabled():
            print(f"\n{line}", end="")  # noqa: T201 - how far it came is the result


def test_the_world_without_accidents_is_explored_completely(double: Double, clock: Clock) -> None:
    # Given nothing that goes wrong, when all orders of heartbeats, plans and reads are tried
    found = explore(double, clock, seconds=60, loss="data", rations=Rations())

    # Then the exploration ends: every further state has the canonical form of an earlier state
    assert found.complete
    assert found.states > 10


@pytest.mark.timeout(600)
def test_an_early_release_of_the_supervisor_is_found(
    double: Double, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a supervisor that gives a daemon back when its run has ended but its process still lives
    plant_in_method(monkeypatch, Supervisor, "ended", "if not host.isolated:", "if True:")

    # When a user restarts the daemon, and everything else happens in any order
    with pytest.raises(Broken) as broken:
        explore(double, clock, seconds=60, loss="data", rations=Rations(users=1))

    # Then it is found to run twice, or to start while its process lives
    assert "y " in str(broken.value)


@pytest.mark.timeout(600)
def test_a_monitor_that_measures_leases_by_the_clock_of_redis_is_found(
    double: Double, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a monitor that takes what Redis's clock says for the time that is left of a lease
    plant_in_method(monkeypatch, LeaseClock, "left_ms", "round((ends_at - now) * 1000)", "overview.leases[node]")

    # When Redis's clock is set once, and everything else happens in any order
    with pytest.raises(Broken) as broken:
        explore(double, clock, seconds=60, loss="data", rations=Rations(steps=1))

    # Then a node is found to be swept that is alive
    assert "set_clock forward" in str(broken.value)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("verb", "line", "instead", "loss", "rations"), MISTAKES)
def test_a_mistake_in_a_script_is_found(
    verb: str,
    line: str,
    instead: str,
    loss: Loss,
    rations: Rations,
    double: Double,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given a script with a mistake
    plant_in_script(monkeypatch, verb, line, instead)

    # When a world with the accidents that it takes is explored, then the exploration runs into the mistake
    with pytest.raises(Broken):
        explore(double, clock, seconds=60, loss=loss, rations=rations)
