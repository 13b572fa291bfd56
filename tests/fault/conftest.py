"""One stage at a time: kept for the next test that wants the same one, if the last test on it came to its end."""

from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from tests.conftest import RUNNING
from tests.fault.stage import Stage


class OnStage(Protocol):
    """Gives a test the stage that it describes; the arguments are those of :class:`tests.fault.stage.Stage`."""

    def __call__(self, **wants: Any) -> Stage: ...


class _Theatre:
    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._stage: Stage | None = None
        self._wants: dict[str, Any] = {}

    def stage(self, wants: dict[str, Any]) -> Stage:
        if self._stage is None or not self._stage.well or self._wants != wants:
            self.close()
            self._wants = wants
            self._stage = Stage(self._factory.mktemp("stage"), **wants)
            self._stage.open()
        return self._stage

    def close(self) -> None:
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Theatre]:
    """Close the module's last stage."""
    theatre = _Theatre(tmp_path_factory)
    yield theatre
    theatre.close()


@pytest.fixture
def on_stage(theatre: _Theatre, request: pytest.FixtureRequest) -> OnStage:
    """Find or make the stage that a test wants, with everything on it as it should be."""

    def find(**wants: Any) -> Stage:
        stage = theatre.stage(wants)
        request.node.stash[RUNNING] = list(stage.workers.values())
        return stage.begin()

    return find
