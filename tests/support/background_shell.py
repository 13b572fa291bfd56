"""Shell scripts that start programs in the background."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.support.projects import Project

#: Seconds that a script has to end after its programs were asked to.
ENDS_WITHIN = 60.0


@contextmanager
def shell(script: str, project: Project) -> Iterator[Path]:
    """Run a script in a project's folder, yield the file with its output, then terminate its background processes."""
    output = project.folder / "shell.log"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (
        output.open("wb") as file,
        subprocess.Popen(
            ["sh", "-c", f"{script}\nwait"],
            cwd=project.folder,
            env=project.environment(PATH=path),
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            yield output
        finally:
            for child in psutil.Process(process.pid).children():
                child.terminate()
            process.wait(ENDS_WITHIN)
