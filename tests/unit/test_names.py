"""The rule for names, and its error messages."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.names import check_name, daemon_name, launcher_name, node_name
from celery_daemons.errors import DaemonsError, InvalidName

ALLOWED = string.ascii_letters + string.digits + "._-:@/+"


@given(st.text(ALLOWED, min_size=1, max_size=200))
def test_a_name_of_allowed_characters_is_accepted_unchanged(name: str) -> None:
    assert daemon_name(name) == name
    assert node_name(name) == name
    assert launcher_name(name) == name


@given(st.text(max_size=20).filter(lambda text: not text or set(text) - set(ALLOWED)))
def test_any_other_text_is_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        daemon_name(name)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a,b", "a\n", "\na", "ä", "a\x00", "a*", "a{b}", "a'b", 'a"b', "a\\b", "٣", "a" * 201],
)
def test_blanks_commas_quotes_and_controls_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="use 1 to 200 characters"):
        check_name(name, "daemon name")


@pytest.mark.parametrize("value", [None, 7, b"web", ["web"], object])
def test_a_value_that_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(InvalidName):
        node_name(value)


def test_a_name_of_the_maximum_length_is_accepted() -> None:
    assert daemon_name("x" * 200) == "x" * 200


def test_the_error_has_the_kind_of_name_and_its_value() -> None:
    with pytest.raises(InvalidName, match=r"launcher name 'not this' is not a valid name"):
        launcher_name("not this")


def test_the_error_has_only_the_beginning_of_a_very_long_name() -> None:
    with pytest.raises(InvalidName) as caught:
        daemon_name("x" * 10_000)

    assert len(str(caught.value)) < 250


def test_an_invalid_name_is_a_daemons_error_and_a_value_error() -> None:
    assert issubclass(InvalidName, DaemonsError)
    assert issubclass(InvalidName, ValueError)
