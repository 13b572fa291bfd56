"""Which loops count as still, and which cannot be judged."""

from celery_daemons.node.vitals import HUNG_AFTER, Vitals


def vitals(no_ticks: str = "") -> Vitals:
    return Vitals(no_ticks=no_ticks, now=0.0)


def rounds(of: Vitals, start: float, end: float) -> None:
    """Let the agent's own loop turn each second."""
    for second in range(int(start), int(end) + 1):
        of.begin_round(float(second))


def test_a_host_that_answers_is_not_still() -> None:
    found = vitals()
    found.host_ready("h", "the loop of host 7", 0.0)
    rounds(found, 0, 60)
    found.host_answered("h", 59.0)

    assert found.hung_loops(60.0) == []


def test_a_host_that_does_not_answer_is_still() -> None:
    found = vitals()
    found.host_ready("h", "the loop of host 7", 0.0)
    rounds(found, 0, 13)

    assert found.hung_loops(HUNG_AFTER) == []
    assert found.hung_loops(13.0) == ["the loop of host 7 has not responded for 13 s"]


def test_a_host_that_has_died_is_not_still() -> None:
    found = vitals()
    found.host_ready("h", "the loop of host 7", 0.0)
    found.host_gone("h")
    found.host_answered("h", 1.0)

    assert found.hung_loops(60.0) == []


def test_a_monitor_that_completes_no_turn_is_still_until_it_ends() -> None:
    found = vitals()
    found.monitor_progressed(0.0)
    rounds(found, 0, 13)
    assert found.hung_loops(13.0) == ["the monitor's loop has not responded for 13 s"]

    found.monitor_gone()

    assert found.hung_loops(13.0) == []


def test_a_worker_that_consumes_and_does_not_tick_is_still() -> None:
    found = vitals()
    found.worker_consumes(True, 0.0)
    rounds(found, 0, 13)

    assert found.hung_worker(13.0) == "the worker's timer has not ticked for 13 s"


def test_a_worker_is_not_judged_while_it_has_no_broker() -> None:
    """Celery waits for the broker in a call, during which its timer does not tick."""
    found = vitals()
    found.worker_consumes(True, 0.0)
    found.worker_consumes(False, 1.0)
    rounds(found, 0, 700)

    assert found.hung_worker(700.0) == ""
    assert found.tick_age(700.0) is None


def test_a_worker_has_the_whole_time_again_once_its_broker_is_back() -> None:
    found = vitals()
    found.worker_consumes(False, 1.0)
    rounds(found, 0, 700)
    found.worker_consumes(True, 700.0)

    assert found.hung_worker(700.0 + HUNG_AFTER) == ""


def test_a_worker_that_shuts_down_is_not_judged() -> None:
    found = vitals()
    found.worker_consumes(True, 0.0)
    found.worker_ends()

    assert found.hung_worker(60.0) == ""


def test_a_worker_whose_timer_says_nothing_is_not_judged() -> None:
    found = vitals("a thread")
    found.worker_consumes(True, 0.0)

    assert found.hung_worker(60.0) == ""


def test_an_agent_that_was_paused_gives_every_loop_its_time_again() -> None:
    """Their answers were on the way, and could not be read."""
    # Given loops that turned before the agent was stopped for a minute
    found = vitals()
    found.host_ready("h", "the loop of host 7", 0.0)
    found.monitor_progressed(0.0)
    found.worker_consumes(True, 0.0)
    rounds(found, 0, 5)

    # When it continues
    found.begin_round(65.0)

    # Then none counts as still, and each does once it has been silent for its time
    assert found.hung_loops(65.0) == []
    assert found.hung_worker(65.0) == ""
    rounds(found, 65, 78)
    assert len(found.hung_loops(78.0)) == 2
    assert found.hung_worker(78.0) != ""
