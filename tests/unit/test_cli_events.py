"""How the command line prints journal entries."""

import re
from dataclasses import replace

from celery_daemons.cli.documents import Event, events_of
from celery_daemons.cli.events import entry_lines
from celery_daemons.domain.records import JournalEntry


def entry(event: str, *items: tuple[str, ...], node: str | None = "w1@test", cause: str | None = None) -> JournalEntry:
    """Return a journal entry."""
    return JournalEntry(
        id="1700000000123-4", at_ms=1700000000123, event=event, node=node, epoch=9, cause=cause, items=items
    )


def test_a_batch_becomes_one_event_per_daemon() -> None:
    first, second = events_of(entry("assign", ("a", "101", "wanted"), ("b", "102", "")))

    assert first == Event(
        id="1700000000123-4",
        at_ms=1700000000123,
        event="assign",
        name="a",
        node="w1@test",
        token=101,
        epoch=9,
        cause="wanted",
    )
    assert (second.name, second.token, second.cause) == ("b", 102, None)


def test_an_entry_about_a_node_has_no_daemon_name() -> None:
    (only,) = events_of(entry("join", cause="cafe"))

    assert (only.name, only.node, only.token, only.cause) == (None, "w1@test", None, "cafe")


def test_the_version_of_a_spec_is_not_shown_as_a_token() -> None:
    (want,) = events_of(entry("want", ("a", "101", "new"), node=None))
    (parked,) = events_of(entry("park", ("a", "0", "no node is up"), node=None))

    assert want.token is None
    assert parked.token is None


def test_items_of_an_unknown_shape_are_shown_as_far_as_possible() -> None:
    found = list(events_of(entry("later", ("a",), ("b", "x"), ("c", "5", "why", "and more"))))

    assert [(event.name, event.token, event.cause) for event in found] == [
        ("a", None, None),
        ("b", None, None),
        ("c", 5, "why"),
    ]


def test_an_event_of_many_daemons_with_the_same_cause_is_one_line() -> None:
    items = [(f"tick.{number}", "7", "preferred") for number in range(1000)]

    (line,) = entry_lines(events_of(entry("assign", *items)))

    assert line.endswith("assign        tick.0, tick.1, tick.2 and 997 more on w1@test: preferred")


def test_each_cause_has_its_own_line() -> None:
    lines = list(entry_lines(events_of(entry("report", ("a", "1", "running"), ("b", "2", "backoff")))))

    assert [line.split("report")[1].strip() for line in lines] == ["a on w1@test: running", "b on w1@test: backoff"]


def test_an_event_names_its_actor() -> None:
    (line,) = entry_lines(events_of(replace(entry("stop", ("a", "5", "")), actor="alice@ops-1:4711", node=None)))

    assert line.endswith("stop          a (by alice@ops-1:4711)")


def test_an_event_fits_a_terminal_and_keeps_the_ends_of_names() -> None:
    name = "settlement.europe-west1.merchant-000000000000000000000012345"
    node = "celery@payments-worker-7d9c6b5f4-x2x9p"
    given = replace(entry("assign", (name, "5", "preferred by the ring"), node=node), actor="monitor")

    (line,) = entry_lines(events_of(given), 80)

    assert len(line) <= 80
    assert re.search(r" assign +settl\S*…\S*345 on celer\S*…\S*x9p: pref.*…\S* \(by monitor\)$", line)
