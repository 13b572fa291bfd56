"""The options of a launcher."""

from typing import Any

import pytest

from celery_daemons.domain.options import LauncherOptions
from celery_daemons.errors import ConfigurationError, InvalidName


def test_the_default_options_are_valid() -> None:
    LauncherOptions().check("tail")


@pytest.mark.parametrize(
    "options",
    [
        {"isolation": "process"},
        {"isolation": "thread"},
        {"restart": "transient"},
        {"restart": "temporary"},
        {"backoff": 5, "backoff_max": 5},
        {"progress_deadline": 0.5},
        {"labels": ("gpu", "a/b:c@d+e")},
        {"weight": 0.1},
        {"prune": True},
    ],
)
def test_valid_options_are_accepted(options: dict[str, Any]) -> None:
    LauncherOptions(**options).check("tail")


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"isolation": "fibre"}, "isolation='fibre' must be one of shared, process, thread, auto"),
        ({"restart": "always"}, "restart='always' must be one of permanent, transient, temporary"),
        ({"backoff": 0}, "backoff=0 must be a number above 0"),
        ({"backoff": "1"}, "backoff='1' must be a number above 0"),
        ({"backoff": True}, "backoff=True must be a number above 0"),
        ({"backoff_max": 0.1}, "backoff_max=0.1 must not be below backoff=0.5"),
        ({"backoff_max": float("inf")}, "backoff_max=inf must be a number above 0"),
        ({"restart_period": -1}, "restart_period=-1 must be a number above 0"),
        ({"max_restarts": 2.5}, "max_restarts=2.5 must be a whole number"),
        ({"prune": 1}, "prune=1 must be True or False"),
        ({"max_restarts": 0}, "max_restarts=0 must be a number above 0"),
        ({"stop_grace": 0}, "stop_grace=0 must be a number above 0"),
        ({"weight": float("nan")}, "weight=nan must be a number above 0"),
        ({"weight": float("inf")}, "weight=inf must be a number above 0"),
        ({"progress_deadline": 0}, "progress_deadline=0 must be a number above 0, or None"),
        ({"progress_deadline": "5"}, "progress_deadline='5' must be a number above 0, or None"),
        ({"labels": "gpu"}, "labels='gpu' must be a list of names"),
    ],
)
def test_an_invalid_option_is_refused_with_launcher_option_value_and_rule(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LauncherOptions(**options).check("tail")

    assert str(caught.value) == f"launcher tail: {rule}"


def test_a_label_obeys_the_rule_for_names() -> None:
    with pytest.raises(InvalidName, match="launcher tail: label 'a b'"):
        LauncherOptions(labels=("a b",)).check("tail")
