"""Temporary Celery projects: a module in a folder, and commands that run on the project."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.warm_python import warm_python

ROOT = Path(__file__).resolve().parents[2]

#: A command takes half a second, most of it imports; a loaded build machine takes longer.
COMMAND_LIMIT = 60.0

#: The first lines of a project that runs daemons; a test adds its launchers.
PRELUDE = """\
import asyncio, os, time
from pathlib import Path
from celery import Celery
from celery_daemons import Daemons

app = Celery("proj", broker=BROKER_URL)
daemons = Daemons(app, namespace=NAMESPACE, **SETTINGS)
"""


class Project:
    """A folder with a module ``proj`` for ``celery -A proj``.

    The source may use ``BROKER_URL``, ``NAMESPACE``, ``SETTINGS`` (settings without their prefix) and ``FOLDER`` (the
    project's folder, as a string: for daemons to leave evidence in).
    """

    module = "proj"

    def __init__(
        self, folder: Path, source: str, *, broker_url: str, namespace: str, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.broker_url = broker_url
        self.namespace = namespace
        constants = {
            "BROKER_URL": broker_url,
            "NAMESPACE": namespace,
            "SETTINGS": dict(settings or {}),
            "FOLDER": str(self.folder),
        }
        head = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
        (self.folder / f"{self.module}.py").write_text(head + source)

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment for a process of this project: as a shell in its folder would have it."""
        path = os.pathsep.join(filter(None, [str(self.folder), str(ROOT), os.environ.get("PYTHONPATH")]))
        return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}

    def celery(self, *arguments: str, within: float = COMMAND_LIMIT) -> subprocess.CompletedProcess[str]:
        """Run ``celery -A proj …`` to its end, whatever its exit status."""
        command = ["-A", self.module, *arguments]
        return warm_python().celery(command, cwd=self.folder, env=self.environment(), within=within)

    def celery_json(self, *arguments: str, within: float = COMMAND_LIMIT) -> Any:
        """Run ``celery -A proj … --json`` and return the document; a failure fails the test."""
        done = self.celery(*arguments, "--json", within=within)
        assert done.returncode == 0, f"{done.args} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def python(self, source: str, within: float = COMMAND_LIMIT) -> str:
        """Run Python code in a process of the project and return what it printed; a failure fails the test."""
        done = subprocess.run(
            [sys.executable, "-c", source],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        assert done.returncode == 0, f"exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout
