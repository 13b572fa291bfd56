"""Find the import string of the user's Celery app in the worker, and load the app by that string elsewhere."""

import sys
from typing import Any, Final

from celery_daemons.errors import ConfigurationError

#: Module names of the script that was run; the second is used by multiprocessing and billiard.
_SCRIPT: Final = ("__main__", "__mp_main__")


def import_string(app: Any) -> str:
    """Return the string by which another process can import ``app``, such as ``proj.celery:app``.

    Raises :exc:`ConfigurationError` if the app is not an attribute of an importable module.
    """
    main = sys.modules.get("__main__")
    found = []
    for module_name, module in list(sys.modules.items()):
        # Not getattr, which makes lazy modules import everything that they offer.
        for attribute, value in list(getattr(module, "__dict__", {}).items()):
            if value is app:
                found.append((module_name, attribute))
    if main is not None and getattr(main, "__spec__", None) is not None and main.__spec__ is not None:
        found = [(main.__spec__.name if name in _SCRIPT else name, attribute) for name, attribute in found]
    # Modules of Celery hold the current app too, but only in this process.
    named = [(name, attribute) for name, attribute in found if name not in _SCRIPT and name.split(".")[0] != "celery"]
    if not named:
        where = (
            " (it is in the script that was run; put it into a module)"
            if any(name in _SCRIPT for name, _ in found)
            else ""
        )
        raise ConfigurationError(
            f"the Celery app {app.main or app!r} is not a module's attribute{where}: daemons run in separate "
            "processes, which import the app; keep it as `app` in an importable module and start the worker with "
            "`celery -A that.module worker`"
        )
    chosen, attribute = min(named, key=lambda pair: (pair[0] != app.main, pair[0].count("."), len(pair[0]), pair))
    return f"{chosen}:{attribute}"


def load(app_string: str) -> Any:
    """Import the app and all task and daemon modules. Raises :exc:`ConfigurationError` with the reason."""
    from celery.app.utils import find_app

    try:
        app = find_app(app_string)
        app.finalize()
        app.loader.import_default_modules()
    except Exception as error:
        raise ConfigurationError(
            f"the Celery app {app_string!r} cannot be imported here ({type(error).__name__}: {error}); "
            "it has to be importable in a fresh process with the worker's sys.path and working directory"
        ) from error
    return app
