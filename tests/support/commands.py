"""Commands of deployment files, run on this machine as they stand, but for paths and addresses."""

import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.projects import Project
from tests.support.workers import CeleryProcess

BIN = Path(sys.executable).parent


class DeployedCommand(CeleryProcess):
    """A long-running command of a deployment file; ``ready`` is a regular expression for its first lines."""

    def __init__(
        self, project: Project, name: str, command: Sequence[str], *, ready: str, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(project, name, [], ready=ready, env=env)
        self._command = [str(BIN / Path(command[0]).name), *command[1:]]


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_ok(url: str) -> bool:
    """Return whether a request is answered by a status below 400, as an HTTP probe of Kubernetes asks."""
    try:
        with urllib.request.urlopen(url, timeout=3):  # noqa: S310 - a URL of the test
            return True
    except (urllib.error.URLError, OSError):
        return False
