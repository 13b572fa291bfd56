"""The arguments of a spec as text."""

import datetime
import uuid
from typing import Any

import pytest

from celery_daemons.errors import ConfigurationError
from celery_daemons.wire.arguments import decode_arguments, encode_arguments

WHEN = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("x", 1, 2.5, None, True), {"path": "/var/log", "lines": [1, 2]}),
        ((WHEN,), {"id": uuid.UUID(int=7)}),
    ],
    ids=["none", "plain JSON", "additional types"],
)
def test_arguments_survive_encoding_and_decoding(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    assert decode_arguments(encode_arguments("tick", args, kwargs)) == (args, kwargs)


def test_equal_arguments_have_the_same_text() -> None:
    assert encode_arguments("tick", [1], {"a": 1, "b": 2}) == encode_arguments("tick", (1,), {"b": 2, "a": 1})


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ("x", {}, r"daemon tick: args is of type str; give a list or a tuple"),
        ({1}, {}, r"daemon tick: args is of type set; give a list or a tuple"),
        ([], ["x"], r"daemon tick: kwargs is of type list; give a dictionary"),
        ([object()], {}, r"daemon tick: its arguments do not serialise to JSON"),
    ],
    ids=["string", "set", "list for kwargs", "object"],
)
def test_arguments_without_a_json_form_are_refused(args: Any, kwargs: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        encode_arguments("tick", args, kwargs)
