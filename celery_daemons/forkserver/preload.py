"""Loads the user's app in the fork server, so that every host and monitor is a fork that already has the app.

Imported by multiprocessing when the fork server starts. A failure to load is kept for the child to report: the fork
server itself has no connection to the agent.
"""

import gc
import importlib
import multiprocessing
import os
import sys
from typing import Final

import msgspec

# Imported before the app, which may replace parts of the standard library.
from celery_daemons.forkserver import inheritance, unpatched  # noqa: F401
from celery_daemons.wire.messages import PRELOAD_VARIABLE, Preload

#: Imported after the app, once for all forks. Named, because they are above this package.
_ROLES: Final = ("celery_daemons.host.main", "celery_daemons.monitor.main")


def main() -> None:
    """Load the app that the environment names."""
    import setproctitle

    preload = msgspec.json.decode(os.environ.pop(PRELOAD_VARIABLE), type=Preload)
    sys.path[:] = preload.sys_path
    inheritance.restore_python_path(preload.python_path)
    setproctitle.setproctitle(f"celery_daemons.forkserver: {preload.node}")
    from celery_daemons.errors import ConfigurationError
    from celery_daemons.forkserver import app_connections, apploader, child, logs

    opened_before = app_connections.open_descriptors()
    try:
        child.app = apploader.load(preload.app)
    except ConfigurationError as error:
        child.failure = str(error)
    else:
        child.start_method = multiprocessing.get_start_method(allow_none=True)
        inheritance.keep_working_directory_importable()
        logs.like_celery(child.app, level=preload.loglevel, logfile=preload.logfile)
        app_connections.close_all(preload.node, opened_before=opened_before)
        for role in _ROLES:
            importlib.import_module(role)
    # Objects that are alive now stay shared between all forks: the garbage collector no longer writes to them.
    gc.collect()
    gc.freeze()


if PRELOAD_VARIABLE in os.environ:
    main()
