"""The codec: encoding and decoding records."""

import contextlib
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.names import Incarnation, LauncherName, NodeName, Token
from celery_daemons.domain.records import BookRow, NodeRow, SpecRow
from celery_daemons.domain.states import DaemonStatus, Desired, NodeStatus
from celery_daemons.store.codec import Corrupt, decode, decode_or_none, encode, printable
from celery_daemons.store.script import compact

NODE = NodeRow(
    incarnation=Incarnation("i1"),
    status=NodeStatus.DRAINING,
    queue="q",
    spawn_queue="s",
    host="h",
    pid=7,
    weight=0.5,
    labels="eu,gpu",
    launchers="a,b",
    started_ms=1_700_000_000_000,
)
ENTRY = BookRow(
    status=DaemonStatus.RUNNING,
    token=Token(1795443778122220),
    launcher=LauncherName("tail"),
    node=NodeName("n1"),
    incarnation=Incarnation("i1"),
    version="7",
    pid=7,
    started_ms=1_700_000_000_000,
    restarts=3,
    error="boom",
)
SPEC = SpecRow(launcher=LauncherName("tail"), arguments="[[1],{}]", desired=Desired.STOPPED, version="7")


@pytest.mark.parametrize("record", [NODE, ENTRY, SPEC])
def test_a_record_round_trips(record: NodeRow | BookRow | SpecRow) -> None:
    plain = dataclasses.asdict(record)
    if isinstance(record, BookRow):
        plain["token"] = str(record.token)  # as the scripts write it
    assert decode(type(record), encode(plain)) == record  # type: ignore[type-var]


def test_a_field_of_a_newer_version_is_ignored() -> None:
    raw = encode({**dataclasses.asdict(SPEC), "colour": "red"})

    assert decode(SpecRow, raw) == SPEC


INVALID = [
    b"",
    b"{",
    b"null",
    b"7",
    b"1e999",
    b"NaN",
    b'"text"',
    b"[]",
    b"{}",
    b"[1,2,3]",
    b'{"status":"running"}',
    b'{"status":"flying","token":"1","launcher":"tail"}',
    b'{"status":"running","token":1,"launcher":"tail"}',
    b'{"status":"running","token":"x","launcher":"tail"}',
    b'{"status":"running","token":"-1","launcher":"tail"}',
    b'{"status":"running","token":"","launcher":"tail"}',
    '{"status":"running","token":"٣","launcher":"tail"}'.encode(),
    b'{"status":"running","token":"' + b"9" * 5000 + b'","launcher":"tail"}',
    b'{"status":"running","token":"1","launcher":"tail","pid":"x"}',
    b'{"status":"running","token":"1","launcher":"tail","pid":"7"}',
    b'{"status":"running","token":"00000000000000001","launcher":"tail"}',
    b'{"status":"running","error":"\\"token\\":\\"1\\"","launcher":"tail"}',
    b"\xff\xfe",
    b'{"status":"running","token":"1","launcher":"\xff"}',
    b"[" * 5000,
]


@pytest.mark.parametrize("raw", INVALID)
def test_an_invalid_record_is_corrupt(raw: bytes) -> None:
    assert decode_or_none(BookRow, raw) is None
    with pytest.raises(Corrupt):
        decode(BookRow, raw)


@pytest.mark.parametrize("token", ["0", "7", "0007", "1795443778122220"])
def test_a_token_is_read_from_its_text_at_any_position(token: str) -> None:
    raw = f'{{"error": "the \\"token\\": \\"5\\"", "token" : "{token}", "launcher": "tail", "status": "running"}}'

    assert decode(BookRow, raw).token == int(token)


def test_an_absent_record_is_not_corrupt() -> None:
    assert decode_or_none(SpecRow, None) is None


@given(st.binary(max_size=60))
def test_no_bytes_raise_another_error_than_corrupt(raw: bytes) -> None:
    for kind in (SpecRow, BookRow, NodeRow):
        with contextlib.suppress(Corrupt):
            decode(kind, raw)  # type: ignore[type-var]


@given(st.text(st.characters()))
def test_any_text_becomes_printable(text: str) -> None:
    encode({"error": printable(text)})
    assert printable(text).isprintable() or not text.isprintable()


def test_invalid_characters_of_a_file_name_are_replaced() -> None:
    assert printable("cannot open /tmp/\udcff.log") == "cannot open /tmp/?.log"


def test_values_that_are_none_are_left_out_for_lua() -> None:
    assert compact({"a": 1, "b": None, "c": 0}) == {"a": 1, "c": 0}
