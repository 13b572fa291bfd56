"""Print the requirements of the package and of extras, or those of its build: ``requirements.py [EXTRA…] | --build``.

Pip cannot install only the dependencies of a project. In a separate layer of the image, they are installed again only
when they change.
"""

import sys
import tomllib
from pathlib import Path
from typing import Any


def requirements(pyproject: dict[str, Any], arguments: list[str]) -> list[str]:
    """Return the requirements that the arguments ask for. Raises KeyError for an unknown extra."""
    if arguments == ["--build"]:
        return list(pyproject["build-system"]["requires"])
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(one for extra in arguments for one in extras[extra])]


if __name__ == "__main__":
    found = requirements(tomllib.loads(Path("pyproject.toml").read_text()), sys.argv[1:])
    sys.stdout.writelines(f"{one}\n" for one in found)
