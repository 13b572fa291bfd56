"""The Dockerfile and the compose file are valid, their layers are cached, and each of their commands works."""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from celery_daemons.settings import DEFAULTS
from tests.support.commands import BIN, DeployedCommand, free_port
from tests.support.projects import ROOT, Project
from tests.support.servers import Server
from tests.support.waiting import wait_until
from tests.support.workers import READY, CeleryProcess

#: These tests install packages, and start three workers.
pytestmark = pytest.mark.heavy

DOCKERFILE = ROOT / "docker" / "Dockerfile"
COMPOSE = ROOT / "docker" / "compose.yaml"
#: Where the image's folders are on a machine without an engine.
IMAGE_FOLDERS = ("/venv", "/src", "/wheels")
#: Seconds within which something happens, on a loaded machine.
SOON = 60.0


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, continuation lines joined, as keyword and rest."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in text.splitlines() if line]


def compose() -> dict[str, Any]:
    """Return the compose file with its anchors resolved."""
    import yaml

    document: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return document


def seconds(duration: str) -> float:
    """Read a duration such as ``40s``."""
    assert duration.endswith("s"), duration
    return float(duration.removesuffix("s"))


# The files


def test_the_compose_file_follows_the_compose_specification() -> None:
    from compose_spec import PyCompose

    spec = PyCompose.from_json(json.dumps(compose()))
    spec.validate()

    assert set(spec.service_names()) >= {"redis", "writer", "reader", "monitor", "worker-1", "worker-2", "worker-3"}


def test_hadolint_has_no_complaint_about_the_dockerfile() -> None:
    done = subprocess.run([BIN / "hadolint", DOCKERFILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_a_change_of_the_code_keeps_the_layers_with_the_dependencies() -> None:
    copied: list[str] = []
    installs = 0
    for keyword, rest in instructions():
        if keyword == "COPY" and not rest.startswith("--from"):
            copied += rest.split()[:-1]
        if keyword == "RUN" and "requirements.txt" in rest:
            installs += 1
            assert copied == ["pyproject.toml", "docker/requirements.py"], rest

    assert installs == 3
    (wheel,) = [rest for keyword, rest in instructions() if "pip wheel" in rest]
    assert {"--no-deps", "--no-build-isolation"} <= set(wheel.split())


def test_the_build_context_holds_what_the_image_copies_and_nothing_else() -> None:
    first, *rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    copied = {
        source
        for keyword, rest in instructions()
        if keyword == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }

    assert first == "*"
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert "**/__pycache__" in rules
    assert all((ROOT / source).exists() for source in copied)


def test_workers_have_longer_to_stop_than_their_drain_takes() -> None:
    for name, service in compose()["services"].items():
        if "CELERY_DAEMONS_HTTP" in service.get("environment", {}):
            assert seconds(service["stop_grace_period"]) > DEFAULTS["drain_timeout"] + 5, name


# The commands of the Dockerfile


def run_commands(folder: Path) -> None:
    """Run the image's commands that build the environment, in this folder instead of the image's folders."""
    for keyword, rest in instructions():
        command = re.sub(r"^--mount=\S+ ", "", rest)
        for path in IMAGE_FOLDERS:
            command = re.sub(rf"(?<![\w/]){path}\b", str(folder / path[1:]), command)
        if keyword == "COPY" and not rest.startswith("--from") and "examples" not in rest:
            *sources, target = rest.split()
            for source in sources:
                into = folder / "src" / (target if target != "./" else "")
                subprocess.run(["cp", "-r", ROOT / source, into], check=True)
        elif keyword == "RUN" and "useradd" not in rest:
            # The last stage has its environment first in PATH; the build's own tools go into the tests' environment.
            first = folder / "venv" / "bin" if rest.startswith("--mount") else folder / "tools" / "bin"
            subprocess.run(["sh", "-ec", f'export PATH="{first}:$PATH"; {command}'], cwd=folder / "src", check=True)


@pytest.mark.timeout(600)
def test_the_commands_of_the_dockerfile_install_the_package_and_its_dependencies(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    # What python:3.13-slim has: an interpreter, and pip.
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "tools"], check=True)

    run_commands(tmp_path)

    pip = [tmp_path / "venv" / "bin" / "python", "-m", "pip"]
    assert subprocess.run([*pip, "check"], check=False).returncode == 0
    shown = subprocess.run([*pip, "list", "--format", "freeze"], capture_output=True, text=True, check=True).stdout
    assert {"celery-daemons", "hiredis", "prometheus-client", "celery"} <= {
        line.partition("=")[0] for line in shown.replace("_", "-").splitlines()
    }
    # The command of the image exists there, with the package's own command in it.
    celery = tmp_path / "venv" / "bin" / "celery"
    told = subprocess.run([celery, "daemons", "--help"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "monitor" in told.stdout


def test_the_requirements_of_an_unknown_extra_fail() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docker" / "requirements.py", "nope"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "nope" in done.stderr


def test_the_requirements_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    done = subprocess.run(
        [sys.executable, ROOT / "docker" / "requirements.py", "hiredis"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == [*project["dependencies"], *project["optional-dependencies"]["hiredis"]]


# The services


class Services:
    """The services of the compose file as processes: same commands and environment, other addresses and paths."""

    def __init__(self, project: Project, server: Server, logs: Path, run: Callable[[CeleryProcess], None]) -> None:
        self.logs = logs
        self._project = project
        self._server = server
        self._run = run
        self._ports: dict[str, int] = {}

    def start(self, service: str, *, name: str | None = None, ready: str) -> DeployedCommand:
        """Start a service under another host name ``name``, and wait until it is ready."""
        found = compose()["services"][service]
        host = name or service
        command = found.get("command") or json.loads(dict(instructions())["CMD"])
        if command[0] == "celery":
            command = [*command, "--hostname", f"celery@{host}"]
        process = DeployedCommand(
            self._project,
            host,
            [self._local(part, host) for part in command],
            ready=ready,
            env={key: self._local(value, host) for key, value in found["environment"].items()},
        )
        self._run(process)
        process.wait_ready()
        return process

    def is_healthy(self, service: str, *, name: str) -> bool:
        """Run the health check of a service whose host name is ``name``."""
        kind, *command = compose()["services"][service]["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run([self._local(part, name) for part in command], check=False).returncode == 0

    def _local(self, text: str, host: str) -> str:
        port = self._ports.setdefault(host, free_port())
        text = text.replace("redis://redis:6379/0", self._server.url).replace("127.0.0.1:9549", f"127.0.0.1:{port}")
        return re.sub(r"^/logs\b", str(self.logs), text)


@pytest.fixture
def services(
    new_server: Callable[..., Server], tmp_path: Path, run_process: Callable[[CeleryProcess], None]
) -> Iterator[Services]:
    server = new_server()
    # A short path: it is part of the daemons' names.
    with tempfile.TemporaryDirectory(prefix="cd-", ignore_cleanup_errors=True) as logs:
        project = Project(tmp_path, "", broker_url=server.url, namespace="celery-daemons.log_shipper")
        yield Services(project, server, Path(logs), run_process)


@pytest.mark.timeout(400)
def test_the_services_ship_every_line_once_while_a_worker_is_killed_and_another_one_hangs(services: Services) -> None:
    # Given
    services.start("writer", ready="writing a line every")
    services.start("monitor", ready="candidate started")
    first = services.start("worker-1", ready=READY)
    second = services.start("worker-2", name="worker-10", ready=READY)
    reader = services.start("reader", ready=r"\d+ lines, all in order, shipped by celery@worker-1")

    # Then: each health check is about its own node.
    for service, name in (("worker-1", "worker-1"), ("worker-2", "worker-10"), ("monitor", "monitor")):
        wait_until(
            lambda service=service, name=name: services.is_healthy(service, name=name),  # type: ignore[misc]
            within=SOON,
            because=f"{name} has joined the cluster",
        )

    # When: a worker is killed.
    first.kill_tree()

    # Then: its daemons move, and only its own health check fails.
    wait_until(lambda: shipped_by(reader) == {"celery@worker-10"}, within=SOON, because="worker-1 was killed")
    assert not services.is_healthy("worker-1", name="worker-1")
    assert services.is_healthy("worker-2", name="worker-10")

    # When: the other one hangs for longer than its lease.
    second.pause_tree()

    # Then
    assert not services.is_healthy("worker-2", name="worker-10")
    wait_until(lambda: shipped_by(reader) == {"no node now"}, within=SOON, because="the lease of worker-10 ended")
    second.resume_tree()
    wait_until(lambda: shipped_by(reader) == {"celery@worker-10"}, within=SOON, because="worker-10 is back")
    assert re.search("MISSING|DOUBLED", reader.output) is None


def shipped_by(reader: DeployedCommand) -> set[str]:
    """Return what the last report of the reader names as the shippers of the three files."""
    lines = re.findall(r"^\S+: \d+ lines, .*, shipped by (.+)$", reader.output, re.MULTILINE)
    return set(lines[-3:])
