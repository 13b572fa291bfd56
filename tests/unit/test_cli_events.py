"""Journal entries as the command line prints them."""

from celery_daemons.cli.documents import Event, events_of
from celery_daemons.cli.events import entry_lines
from celery_daemons.domain.records import JournalEntry


def entry(event: str, *items: tuple[str, ...], node: str | None = "w1@test", cause: str | None = None) -> JournalEntry:
    """Return an entry of the journal."""
    return JournalEntry(
        id="1700000000123-4", at_ms=1700000000123, event=event, node=node, epoch=9, cause=cause, items=items
    )


def test_a_batch_is_an_event_for_each_of_its_daemons() -> None:
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


def test_an_entry_about_a_node_has_no_name() -> None:
    (only,) = events_of(entry("join", cause="cafe"))

    assert (only.name, only.node, only.token, only.cause) == (None, "w1@test", None, "cafe")


def test_the_version_of_a_spec_is_not_passed_off_as_a_token() -> None:
    (wish,) = events_of(entry("want", ("a", "101", "new"), node=None))
    (parked,) = events_of(entry("park", ("a", "0", "no node is up"), node=None))

    assert wish.token is None
    assert parked.token is None


def test_items_of_another_shape_do_not_break_the_command() -> None:
    found = list(events_of(entry("later", ("a",), ("b", "x"), ("c", "5", "why", "and more"))))

    assert [(event.name, event.token, event.cause) for event in found] == [
        ("a", None, None),
        ("b", None, None),
        ("c", 5, "why"),
    ]


def test_people_read_one_line_for_what_befell_many_daemons_alike() -> None:
    items = [(f"tick.{number}", "7", "preferred") for number in range(1000)]

    (line,) = entry_lines(events_of(entry("assign", *items)))

    assert line.endswith("assign        tick.0, tick.1, tick.2 and 997 more on w1@test: preferred")


def test_people_read_a_line_for_each_cause() -> None:
    lines = list(entry_lines(events_of(entry("report", ("a", "1", "running"), ("b", "2", "backoff")))))

    assert [line.split("report")[1].strip() for line in lines] == ["a on w1@test: running", "b on w1@test: backoff"]
