"""The text in which nodes store the labels and weights that launchers require."""

from hypothesis import given
from hypothesis import strategies as st

from celery_daemons.domain.records import needs_text, read_needs

names = st.text(st.sampled_from("abAB09._-:@/+"), min_size=1, max_size=12)


@given(
    st.dictionaries(names, st.tuples(st.lists(names, max_size=3).map(tuple), st.sampled_from([0.5, 1.0, 2.0, 10.25])))
)
def test_needs_round_trip_and_default_needs_are_omitted(
    launchers: dict[str, tuple[tuple[str, ...], float]],
) -> None:
    asking = {name: needs for name, needs in launchers.items() if needs != ((), 1.0)}

    assert read_needs(needs_text(launchers)) == asking


@given(st.text(max_size=40))
def test_invalid_needs_are_ignored(text: str) -> None:
    for labels, weight in read_needs(text).values():
        assert isinstance(labels, tuple)
        assert isinstance(weight, float)
