"""How many host processes fit into the limit of open files."""

import errno
import resource

import pytest

from celery_daemons.node import descriptors

UNLIMITED = resource.RLIM_INFINITY


class Limits:
    """Stands in for the limits of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.now = (soft, hard)
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.now)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _: int, limits: tuple[int, int]) -> None:
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "raised"),
    [
        (1024, 4096, 4096),
        (1024, 1_073_741_816, 65_536),
        (1024, UNLIMITED, 65_536),
        (100_000, 200_000, 100_000),
        (UNLIMITED, UNLIMITED, UNLIMITED),
        (512, 512, 512),
    ],
)
def test_the_limit_is_raised_as_far_as_it_is_useful(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised: int
) -> None:
    limits = Limits(monkeypatch, soft, hard)

    descriptors.raise_limit()

    assert limits.now == (raised, hard)


def test_a_host_that_does_not_fit_is_refused_with_the_limit_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    Limits(monkeypatch, 1024, 1024)

    descriptors.check_room(243)
    with pytest.raises(OSError, match=r"244 host processes fit into the limit of 1024 open files; raise it") as error:
        descriptors.check_room(244)
    assert error.value.errno == errno.EMFILE


def test_without_a_limit_every_host_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    Limits(monkeypatch, UNLIMITED, UNLIMITED)

    descriptors.check_room(1_000_000)
