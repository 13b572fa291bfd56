"""What the command line prints for people."""

import re

import pytest

from celery_daemons.cli.hints import hints
from celery_daemons.cli.render import Screen, age, caps, cell, columns, first_line, since, tally
from celery_daemons.client.lookups import ClusterStatus, ScanRecord
from celery_daemons.domain.names import Epoch, NodeName
from celery_daemons.domain.records import Leader
from celery_daemons.domain.states import DaemonStatus

LONG = "tick." + "x" * 180


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-3, "0s"), (0.9, "0s"), (59.9, "59s"), (192, "3m12s"), (7500, "2h05m"), (4 * 86400 + 3 * 3600, "4d03h")],
)
def test_an_age_is_shown_in_its_two_largest_units(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_a_daemon_that_has_not_started_has_no_age() -> None:
    assert since(None, 100.0) == "-"
    assert since(0.0, 100.0) == "-"
    assert since(40.0, 100.0) == "1m00s"


def test_a_table_in_a_pipe_keeps_whole_names_and_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().table(["NAME", "PID", "ERROR"], [[LONG, "7", "-"], ["b", "1234", "boom"]], right=["PID"])

    head, first, second = capsys.readouterr().out.splitlines()
    assert first == f"{LONG}     7  -"
    assert second == f"{'b':<{len(LONG)}}  1234  boom"
    assert head.index("ERROR") == first.index("-") == second.index("boom")


POD = "celery@payments-worker-7d9c6b5f4-x2x9p"
DAEMON = "settlement.europe-west1.merchant-000000000000000000000012345"
HEAD = ["NAME", "LAUNCHER", "STATUS", "NODE", "PID", "AGE", "RESTARTS", "ERROR"]


def test_a_table_on_a_terminal_has_one_line_per_row_and_keeps_the_ends_of_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Names as they are in Kubernetes: a daemon of 60 characters, and the pod of a deployment."""
    assert len(DAEMON) == 60
    rows = [
        [DAEMON, "settlement", "unplaceable", POD, "1234567", "12h34m", "12345", "ConnectionError: refused by a peer"],
        [DAEMON[:-1] + "6", "settlement", "running", POD[:-1] + "q", "7", "1s", "0", "-"],
    ]
    optional = ("PID", "LAUNCHER", "AGE", "RESTARTS")

    Screen(width=80).table(HEAD, rows, right=("PID", "AGE", "RESTARTS"), optional=optional)

    head, first, second = capsys.readouterr().out.splitlines()
    assert max(len(head), len(first), len(second)) <= 80
    assert re.fullmatch(r"settlement\S*…\S*12345  unplaceable  celery@\S*…\S*-x2x9p  ConnectionErr.*…", first)
    assert re.fullmatch(r"settlement\S*…\S*12346  running      celery@\S*…\S*-x2x9q  -", second)


def test_a_table_that_fits_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(width=80).table(HEAD, [["a", "t", "running", "n@h", "7", "1s", "0", "-"]], optional=("PID",))

    assert capsys.readouterr().out.splitlines()[0].split() == HEAD


def test_a_table_keeps_its_columns_with_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(width=30).table(["NAME", "ERROR"], [["a", "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 40], ["b", "-"]])

    shown = capsys.readouterr().out.splitlines()
    assert max(map(columns, shown)) <= 30


@pytest.mark.parametrize(
    ("lengths", "room", "given"),
    [
        ([5, 5], 20, [5, 5]),
        ([60, 40, 3], 43, [20, 20, 3]),
        ([60, 40, 3], 44, [21, 20, 3]),
        ([], 5, []),
        ([9, 9], 0, [1, 1]),
    ],
)
def test_the_longest_texts_give_room_first(lengths: list[int], room: int, given: list[int]) -> None:
    assert caps(lengths, room) == given


def test_long_values_are_wrapped_between_words_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(width=40).pairs([("hint", "two daemons are failed: " + "word " * 12), ("leader", POD)])

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 8 + len(POD)
    assert all(line.startswith(("hint    ", "leader  ", "        ")) for line in lines)
    assert lines[-1] == f"leader  {POD}"


def test_a_terminal_gets_colours_but_no_control_characters_of_a_daemon(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    Screen(colour=True, width=60).table(["STATUS", "ERROR"], [["failed", "[red]\x1b[2Jnot\x07 this[/red]"]])

    shown = capsys.readouterr().out
    assert "\x1b[31mfailed" in shown
    assert "[red]" in shown
    assert "\x1b[2J" not in shown
    assert "\x07" not in shown


def test_control_characters_in_an_error_cannot_drive_the_terminal() -> None:
    assert cell("a\x1b[31mb\nc\td\x9be") == "a�[31mb c d�e"


def test_only_the_first_line_of_an_error_is_shown_in_a_table() -> None:
    assert first_line("\nValueError: bad\n  more") == "ValueError: bad"
    assert first_line(None) == "-"


def test_further_lines_of_a_value_are_indented_below_its_first_line(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().pairs([("last error", "one\ntwo"), ("token", "7")])

    assert capsys.readouterr().out.splitlines() == ["last error  one", "            two", "token       7"]


def test_a_tally_omits_zeros_unless_they_are_asked_for() -> None:
    assert tally({"desired": 0, "running": 0, "failed": 2, "stopped": 0}, always=("running",)) == "0 running, 2 failed"


def status(
    *, has_leader: bool = True, up: int = 1, draining: int = 0, lost: int = 0, failed: int = 0, pending: int = 0
) -> ClusterStatus:
    """Return the status of a cluster."""
    return ClusterStatus(
        namespace="test",
        leader=Leader(node=NodeName("w1@test"), epoch=Epoch(7)) if has_leader else None,
        nodes={"up": up, "draining": draining, "lost": lost},
        daemons={"desired": failed, **{str(one): 0 for one in DaemonStatus}, "failed": failed, "pending": pending},
        scanners={"tick": ScanRecord(at_ms=1, took_ms=1, listed=0, error="boom" if failed else None)},
    )


@pytest.mark.parametrize(
    ("cluster", "advice"),
    [
        (status(has_leader=False, up=0), ["`celery -A proj worker`"]),
        (status(has_leader=False), ["`celery -A proj daemons monitor`"]),
        (status(up=0, draining=2), ["uncordon NODE"]),
        (status(lost=2), ["2 nodes have lost their lease; their daemons"]),
        (status(lost=1), ["1 node has lost its lease; its daemons"]),
        (status(failed=1), ["list --status failed", "`celery -A proj daemons rescan`"]),
        (status(pending=2), ["waits one lease"]),
        (status(), []),
    ],
    ids=["no node", "no leader", "all draining", "two lost", "one lost", "failed", "new", "well"],
)
def test_each_problem_of_a_cluster_has_a_hint_with_its_remedy(cluster: ClusterStatus, advice: list[str]) -> None:
    given = list(hints(cluster, "celery -A proj daemons"))

    assert len(given) == len(advice)
    for hint, part in zip(given, advice, strict=True):
        assert part in hint
