"""Set up logging in the processes of a node, so that their lines go to the worker's log."""

import logging
from typing import Any

_FORMAT = "[%(asctime)s: %(levelname)s/{role}] %(message)s"


def plain(role: str, *, level: int, logfile: str | None) -> None:
    """Set up logging without importing Celery, in the format of a worker's log. Used by the agent."""
    handler: logging.Handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT.format(role=role)))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def like_celery(app: Any, *, level: int, logfile: str | None) -> None:
    """Set up logging as Celery does in a worker, so that the user's ``setup_logging`` handlers run.

    With ``worker_redirect_stdouts`` what is printed goes to the log as well.
    """
    app.log.setup(
        loglevel=level,
        logfile=logfile,
        redirect_stdouts=app.conf.worker_redirect_stdouts,
        redirect_level=app.conf.worker_redirect_stdouts_level,
    )
