"""Interleavings that attack one line of the protocol each; and the same without that line, which must be noticed."""

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from celery_daemons.domain.server_clock import ServerClock
from celery_daemons.monitor.lease_clock import LeaseClock
from celery_daemons.node.supervision.supervisor import Supervisor
from tests.unit.protocol import accident_stories, loss_stories, stories
from tests.unit.protocol.accident_stories import OF_ACCIDENTS
from tests.unit.protocol.clock import Clock, virtual_time
from tests.unit.protocol.double import Double
from tests.unit.protocol.loss_stories import OF_LOSSES
from tests.unit.protocol.machine import Protocol
from tests.unit.protocol.mistakes import plant_in_method, plant_in_script
from tests.unit.protocol.stories import OF_STARTS_AND_STOPS
from tests.unit.protocol.story import Story
from tests.unit.protocol.world import Broken

STORIES = (*OF_STARTS_AND_STOPS, *OF_LOSSES, *OF_ACCIDENTS)

#: A mistake: the story that meets it, the script that it is made in (any: in all), the line, and what replaces it.
MISTAKES: list[tuple[Callable[[Story], None], str, str, str]] = [
    (stories.a_node_whose_lease_runs_is_swept, "sweep", "lease ~= tonumber(ARGV[4])", "false"),
    (
        stories.a_dead_node_is_swept_and_its_daemon_moves,
        "sweep",
        "unplace(daemons, name, record, 'pending')",
        "",
    ),
    (stories.a_daemon_that_runs_is_assigned_again, "assign", "and not (record and record.node)", ""),
    (stories.a_late_release_meets_a_newer_start, "release", "elseif record.token == item.token", "elseif true"),
    (stories.a_late_claim_meets_a_newer_token, "claim", "record.token ~= item[2]", "false"),
    (stories.a_late_claim_arrives_after_the_lease, "claim", "or lease <= now_ms()", ""),
    (stories.a_daemon_starts_twice_under_one_token, "claim", "record.token = text(mint(KEYS[5], 1))", ""),
    (
        loss_stories.a_late_reassertion_meets_a_newer_holder,
        "reassert",
        "tonumber(record.token) > tonumber(item.token)",
        "false",
    ),
    (loss_stories.a_daemon_that_did_not_run_outlives_a_loss, "any", "math.max(last + 1, now_us())", "last + 1"),
    (loss_stories.all_data_is_lost, "reassert", "if not record and not spec then", "if false then"),
    (stories.a_worker_of_a_taken_name_starts, "join", "if lease > now and", "if false and"),
    (stories.the_worker_restarts_its_agent, "join", "holder ~= previous", "true"),
    (
        stories.a_late_beat_of_a_dead_incarnation_arrives,
        "beat",
        "if record.incarnation ~= ARGV[2] then return {0} end",
        "",
    ),
    (stories.a_paused_monitor_goes_on, "any", "leader ~= nil and leader.epoch == epoch", "leader ~= nil"),
    (stories.a_node_leaves_with_nothing_in_hand, "release", "write_all('SREM', KEYS[3], left)", ""),
    (
        loss_stories.a_forgotten_daemon_meets_a_failover,
        "reassert",
        "if not record and not spec then",
        "if not spec then",
    ),
    (
        loss_stories.a_recall_meets_a_failover,
        "reassert",
        "same.status == 'stopping' and 'stopping' or item.status",
        "item.status",
    ),
    (stories.a_daemon_is_replaced_as_it_finishes, "release", "and spec.version == record.version", ""),
    (loss_stories.a_failover_leaves_a_name_behind, "held", "redis.call('SREM', KEYS[1], name)", ""),
    (stories.a_monitor_without_the_lease_resigns, "resign", "if not leads(KEYS[1], ARGV[1]) then return 0 end", ""),
    (loss_stories.a_claim_meets_an_unconfirmed_server, "claim", "then return {'unconfirmed'} end", "then end"),
    (
        accident_stories.a_machine_is_lost_as_redis_clock_is_set_back,
        "sweep",
        "lease ~= tonumber(ARGV[4])",
        "lease > now_ms()",
    ),
    (
        accident_stories.a_silent_node_has_a_longer_lease_than_others,
        "reassert",
        "if lost > longest_lease(KEYS[11]) then",
        "if false then",
    ),
    (
        accident_stories.redis_returns_old_while_its_clock_is_behind,
        "reassert",
        "highest = math.max(highest, tonumber(item.token))",
        "",
    ),
    (accident_stories.a_node_that_cannot_fork_is_given_a_daemon, "assign", "and (node.problem or '') == ''", ""),
]

#: A mistake in Python: the story that meets it, the class and method that it is made in, the line, what replaces it.
METHOD_MISTAKES: list[tuple[Callable[[Story], None], type, str, str, str]] = [
    # A release before the process is dead.
    (stories.a_process_outlives_the_report_of_its_end, Supervisor, "ended", "if not host.isolated:", "if True:"),
    # Leases are measured by Redis's clock.
    (
        accident_stories.redis_clock_is_set_forward,
        LeaseClock,
        "left_ms",
        "round((ends_at - now) * 1000)",
        "overview.leases[node]",
    ),
    # What was measured before a step counts no longer.
    (
        accident_stories.a_monitor_without_a_worker_has_seen_the_clock_before,
        ServerClock,
        "latest",
        "for segment in self._segments",
        "for segment in self._segments[-1:]",
    ),
    # Daemons that wait for a process that cannot be forked are kept.
    (accident_stories.a_node_cannot_fork, Supervisor, "cannot_start", "self._starter.give_back_waiting()", "pass"),
]

#: The mistakes among them that random interleavings are likely to meet.
COARSE = (
    stories.a_node_whose_lease_runs_is_swept,
    stories.a_daemon_that_runs_is_assigned_again,
    stories.a_worker_of_a_taken_name_starts,
)


def title(value: object) -> str | None:
    return getattr(value, "__name__", "").replace("_", "-") or None


@pytest.fixture(scope="module")
def double() -> Double:
    return Double()


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as clock:
        yield clock


@pytest.mark.parametrize("story", STORIES, ids=title)
def test_a_story_breaks_no_invariant(story: Callable[[Story], None], double: Double, clock: Clock) -> None:
    story(Story(double, clock))


def test_every_story_has_its_mistake() -> None:
    assert {story for story, *_ in [*MISTAKES, *METHOD_MISTAKES]} == set(STORIES)


@pytest.mark.parametrize(("story", "verb", "line", "instead"), MISTAKES, ids=title)
def test_a_mistake_is_noticed(
    story: Callable[[Story], None],
    verb: str,
    line: str,
    instead: str,
    double: Double,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant_in_script(monkeypatch, verb, line, instead)

    with pytest.raises(Broken):
        story(Story(double, clock))


@pytest.mark.parametrize(("story", "owner", "method", "line", "instead"), METHOD_MISTAKES, ids=title)
def test_a_mistake_in_python_is_noticed(
    story: Callable[[Story], None],
    owner: type,
    method: str,
    line: str,
    instead: str,
    double: Double,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant_in_method(monkeypatch, owner, method, line, instead)

    with pytest.raises(Broken):
        story(Story(double, clock))


class FewRules(Protocol):
    """Interleavings of the few actions that the coarse mistakes need."""

    beat = bury_ended = crash_host = desire = end_run = fail_over = finish_stops = forget = leave = lose_data = None
    act_on_an_old_view = arrive = fail_forks = set_clock = pause_or_resume = pause_or_resume_a_monitor = replicate = (
        resign
    ) = send_one = None
    read_assignments = recall = tick = None

    def teardown(self) -> None:
        """Check nothing at the end: the mistake was met before, or not."""


@pytest.mark.parametrize(
    ("verb", "line", "instead"),
    [mistake for story, *mistake in MISTAKES if story in COARSE],
    ids=title,
)
def test_random_interleavings_run_into_a_coarse_mistake(
    verb: str,
    line: str,
    instead: str,
    double: Double,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant_in_script(monkeypatch, verb, line, instead)
    FewRules.double, FewRules.clock = double, clock

    with pytest.raises(Broken):
        run_state_machine_as_test(
            FewRules,
            settings=settings(
                max_examples=200,
                stateful_step_count=10,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
