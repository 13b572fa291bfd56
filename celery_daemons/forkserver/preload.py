"""Loads the user's app in the fork server, so that every host and monitor is a fork that already has the app.

Imported by multiprocessing when the fork server starts. A failure to load is kept for the child to report: the fork
server itself has no connection to the agent.
"""

import gc
import os
import sys

import msgspec

from celery_daemons.wire.messages import PRELOAD_VARIABLE, Preload


def main() -> None:
    """Load the app that the environment names."""
    import setproctitle

    preload = msgspec.json.decode(os.environ.pop(PRELOAD_VARIABLE), type=Preload)
    sys.path[:] = preload.sys_path
    setproctitle.setproctitle(f"celery_daemons.forkserver: {preload.node}")
    from celery_daemons.errors import ConfigurationError
    from celery_daemons.forkserver import apploader, child, logs

    try:
        child.app = apploader.load(preload.app)
    except ConfigurationError as error:
        child.failure = str(error)
    else:
        logs.like_celery(child.app, level=preload.loglevel, logfile=preload.logfile)
    # Objects that are alive now stay shared between all forks: the garbage collector no longer writes to them.
    gc.collect()
    gc.freeze()


if PRELOAD_VARIABLE in os.environ:
    main()
