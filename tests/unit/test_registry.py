"""The registry of launchers is a mapping that also says what is missing."""

import pytest
from celery import Celery

from celery_daemons import Daemons, Launcher, UnknownLauncher


async def feed(ctx: object) -> None:
    """Run a daemon."""


@pytest.fixture
def daemons() -> Daemons:
    return Daemons(Celery(), redis_url="redis://localhost")


def test_get_returns_none_or_the_default_for_a_name_that_is_not_registered(daemons: Daemons) -> None:
    """It raised UnknownLauncher, unlike the same method of every other mapping."""
    launcher = daemons.register_launcher("feed", Launcher(feed))

    assert daemons.launchers.get("feed") is launcher
    assert daemons.launchers.get("unknown") is None
    assert daemons.launchers.get("unknown", launcher) is launcher
    with pytest.raises(UnknownLauncher):
        daemons.launchers["unknown"]


def test_an_unregistered_launcher_is_gone_and_its_name_free(daemons: Daemons) -> None:
    launcher = daemons.register_launcher("feed", Launcher(feed))

    assert daemons.launchers.unregister("feed") is launcher

    assert "feed" not in daemons.launchers
    with pytest.raises(UnknownLauncher, match="no launcher 'feed' is registered"):
        daemons.launchers.unregister("feed")
    assert daemons.register_launcher("feed", Launcher(feed)).name == "feed"


def test_a_launcher_with_a_long_first_delay_need_not_set_the_limit_of_it(daemons: Daemons) -> None:
    launcher = daemons.register_launcher("feed", Launcher(feed, backoff=60))

    assert (launcher.options.backoff, launcher.options.backoff_max) == (60, 60)
    assert daemons.register_launcher("other", Launcher(feed, backoff=1)).options.backoff_max == 30
