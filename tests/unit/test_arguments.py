"""The arguments of a spec as text."""

import datetime
import functools
import inspect
import uuid
from typing import Any

import pytest
from celery import Celery

from celery_daemons import Daemons, Launcher
from celery_daemons.domain.calls import bind_arguments
from celery_daemons.errors import ConfigurationError
from celery_daemons.wire.arguments import LONGEST, decode_arguments, encode_arguments

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


def poll(ctx: object, url: str, every: float = 1.0, *, retries: int = 3) -> None:
    """A launcher's function."""


def spread(ctx: object, first: int, /, second: int = 2, *rest: int, **named: int) -> None:
    """A function with every kind of parameter."""


class Worker:
    """A launcher's class."""

    def run(self, ctx: object, number: int) -> None:
        """Run."""


def launcher(factory: Any) -> Launcher:
    """Register a launcher."""
    return Daemons(Celery(), redis_url="redis://localhost").register_launcher("poll", Launcher(factory))


@pytest.mark.parametrize(
    ("args", "kwargs", "culprit"),
    [
        (["x"], {"rate": 1}, "got an unexpected keyword argument 'rate'"),
        ([], {"every": 1}, "missing a required argument: 'url'"),
        (["x", 1, 2], {}, "too many positional arguments"),
        (["x"], {"url": "y"}, "multiple values for argument 'url'"),
        (["x"], {"ctx": 1}, "multiple values for argument 'ctx'"),
    ],
)
def test_arguments_that_a_launcher_does_not_take_are_refused_at_once_with_the_parameter(
    args: list[Any], kwargs: dict[str, Any], culprit: str
) -> None:
    made = launcher(poll)

    for attempt in (lambda: made.spec("a", *args, **kwargs), lambda: made.spawn("a", *args, **kwargs)):
        with pytest.raises(ConfigurationError) as error:
            attempt()
        assert str(error.value) == (
            f"daemon a: launcher poll does not take these arguments: {culprit}; "
            "its parameters after ctx are (url: str, every: float = 1.0, *, retries: int = 3)"
        )


def test_one_call_is_one_text_however_it_is_written() -> None:
    """As two texts, a spec and the same spec of a scanner would replace each other without end."""
    made = launcher(poll)

    calls = [made.spec("a", "x", 0.7), made.spec("a", "x", every=0.7), made.spec("a", every=0.7, url="x")]

    assert {encode_arguments("a", call.args, call.kwargs) for call in calls} == {'[[], {"every": 0.7, "url": "x"}]'}


def test_parameters_of_every_kind_are_called_as_they_were_given() -> None:
    signature = inspect.signature(spread)

    for args, kwargs in (([1], {}), ([1, 5], {}), ([1, 5, 6, 7], {"more": 8}), ([1], {"second": 5, "more": 8})):
        positional, named = bind_arguments(signature, args, kwargs, name="a", launcher="spread")
        assert signature.bind(None, *positional, **named) == signature.bind(None, *args, **kwargs)


def test_arguments_of_a_class_are_those_of_its_method_run() -> None:
    with pytest.raises(ConfigurationError, match=r"'number'.*\(number: int\)"):
        launcher(Worker).spec("a", count=1)


def test_a_function_under_a_decorator_is_asked_for_what_the_decorator_takes() -> None:
    """A decorator may add arguments: what it hides must not be required."""

    def with_session(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapper(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            return await function(ctx, object(), *args, **kwargs)

        return wrapper

    @with_session
    async def load(ctx: object, session: object, path: str) -> None:
        """Take a session that the decorator adds."""

    assert launcher(load).spec("a", "x").args == ("x",)


def test_arguments_above_the_limit_are_refused_with_their_size() -> None:
    with pytest.raises(ConfigurationError, match=r"daemon big: its arguments take 1048592 bytes.*limit is 1048576"):
        encode_arguments("big", ["x" * (LONGEST + 6)], {})

    assert len(encode_arguments("big", ["x" * (LONGEST - 10)], {})) == LONGEST


def test_keys_of_kwargs_that_are_no_strings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="the key 1 of kwargs is not a string"):
        encode_arguments("a", [], {1: 2})
