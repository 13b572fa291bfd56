"""Check an installed package from outside its source tree: all files are present, and all modules can be imported."""

import importlib
import pkgutil
import sys
from importlib.metadata import entry_points, version
from importlib.resources import files
from pathlib import Path

import celery_daemons

#: Need the extra ``test``, or the projects that they are for, which the smoke test does not install.
NEEDS_EXTRAS = ("celery_daemons.testing", "celery_daemons.contrib.")
#: The broker of the README's program.
BROKER = "kombu.transport.redis"


def main() -> None:
    """Print what the package holds, or exit with a message if something is missing."""
    package = files("celery_daemons")
    here = Path(str(package)).resolve()
    if not here.is_relative_to(Path(sys.prefix).resolve()):
        sys.exit(f"imported from {here}, which is not the environment under test")
    if not (package / "py.typed").is_file():
        sys.exit("py.typed is missing: type checkers would ignore the annotations")
    scripts = [entry.name for entry in (package / "store" / "lua").iterdir() if entry.name.endswith(".lua")]
    if not scripts:
        sys.exit("there is no Lua file under celery_daemons/store/lua")

    modules = [
        module.name
        for module in pkgutil.walk_packages(celery_daemons.__path__, "celery_daemons.")
        if not module.name.endswith(".__main__") and not module.name.startswith(NEEDS_EXTRAS)
    ]
    for name in [*modules, BROKER]:
        importlib.import_module(name)

    (command,) = entry_points(group="celery.commands", name="daemons")
    command.load()
    print(f"celery-daemons {version('celery-daemons')}: {len(modules)} modules, {len(scripts)} Lua files, py.typed")


if __name__ == "__main__":
    main()
