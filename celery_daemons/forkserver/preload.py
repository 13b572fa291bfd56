"""Imported once by the fork server: loads the user's app, so that each host is a fork of it.

What goes wrong is left for the host to find again and report; a fork server that dies says nothing to anyone.
"""

import gc
import json
import os
import sys

#: Where the agent leaves, for its fork server, what to load: the app, the path and the node.
ENVIRONMENT = "CELERY_DAEMONS_PRELOAD"


def main() -> None:
    """Load what the environment names."""
    import setproctitle

    wanted = json.loads(os.environ.pop(ENVIRONMENT))
    sys.path[:] = wanted["sys_path"]
    setproctitle.setproctitle(f"celery_daemons.forkserver: {wanted['node']}")
    from celery_daemons.errors import ConfigurationError
    from celery_daemons.forkserver import apploader, child, logs

    try:
        child.app = apploader.load(wanted["app"])
    except ConfigurationError as error:
        child.failure = str(error)
    else:
        logs.like_celery(child.app, level=wanted["loglevel"], logfile=wanted["logfile"])
    # Whatever is alive now stays shared between all forks: no collection writes to it.
    gc.collect()
    gc.freeze()


if ENVIRONMENT in os.environ:
    main()
