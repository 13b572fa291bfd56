"""Systemd accepts the units, and their commands notify it, run and stop."""

import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celery_daemons.settings import DEFAULTS
from tests.conftest import NewProject
from tests.support.commands import BIN, DeployedCommand
from tests.support.projects import PRELUDE, ROOT
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import READY, CeleryProcess

#: These tests need systemd's tools, and start workers.
pytestmark = pytest.mark.heavy

FOLDER = ROOT / "deploy" / "systemd"
UNITS = [("celery-worker@.service", READY), ("celery-monitor.service", "candidate started")]
#: Seconds within which something happens, on a loaded machine.
SOON = 60.0


def values(unit: str) -> dict[str, str]:
    """Return the assignments of a unit; each name occurs once."""
    pairs = re.findall(r"^(\w+)=(.*)$", (FOLDER / unit).read_text(), re.MULTILINE)
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("unit", [unit for unit, _ in UNITS])
def test_systemd_accepts_a_unit(unit: str, tmp_path: Path) -> None:
    # The path of the command has to exist.
    text = (FOLDER / unit).read_text().replace("/srv/proj/venv/bin", str(BIN))
    instance = unit.replace("@.", "@1.")
    (tmp_path / instance).write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / instance], capture_output=True, text=True, check=False
    )

    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or unit.partition(".")[0] in line]
    assert complaints == []


@pytest.mark.parametrize("unit", [unit for unit, _ in UNITS])
def test_a_unit_has_longer_to_stop_than_its_drain_takes(unit: str) -> None:
    settings = dict(re.findall(r"^(CELERY_\w+)=(.*)$", (FOLDER / "proj.env").read_text(), re.MULTILINE))

    assert float(settings["CELERY_DAEMONS_DRAIN_TIMEOUT"]) == DEFAULTS["drain_timeout"]
    assert float(values(unit)["TimeoutStopSec"]) > DEFAULTS["drain_timeout"] + 10


@pytest.fixture
def notifications() -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with tempfile.TemporaryDirectory(prefix="cd-") as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(f"{folder}/notify")
        ours.settimeout(0.1)
        yield ours


@pytest.mark.parametrize(("unit", "ready"), UNITS)
def test_the_command_of_a_unit_reports_that_it_is_ready_and_ends_on_sigterm(
    unit: str,
    ready: str,
    valkey: Server,
    new_project: NewProject,
    run_process: Callable[[CeleryProcess], None],
    notifications: socket.socket,
) -> None:
    # Given
    unit_values = values(unit)
    assert unit_values["Type"] == "notify"
    assert unit_values["NotifyAccess"] == "all"
    assert unit_values["KillMode"] == "mixed"
    name = "worker-1" if "@" in unit else "monitor"
    command = [part.replace("%i", "1").replace("%H", "test") for part in shlex.split(unit_values["ExecStart"])]
    env = {"NOTIFY_SOCKET": notifications.getsockname(), "CELERY_BROKER_URL": valkey.url}
    received: list[str] = []

    def has_received(line: str) -> bool:
        try:
            received.extend(notifications.recv(4096).decode().splitlines())
        except TimeoutError:
            return False
        return line in received

    # When
    process = DeployedCommand(new_project(PRELUDE), name, command, ready=ready, env=env)
    run_process(process)

    # Then
    wait_until(lambda: has_received("READY=1"), within=SOON, because="the node has joined")
    assert process.stop(timeout=float(unit_values["TimeoutStopSec"])) == 0
