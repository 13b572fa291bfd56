"""Logging in the processes that this package starts, to where the worker's own log goes."""

import logging
from typing import Any

_FORMAT = "[%(asctime)s: %(levelname)s/{role}] %(message)s"


def plain(role: str, *, level: int, logfile: str | None) -> None:
    """Set up logging without Celery, in the shape of a worker's log; for the agent."""
    handler: logging.Handler = logging.FileHandler(logfile) if logfile else logging.StreamHandler()
    handler.setFormatter(logging.Formatter(_FORMAT.format(role=role)))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def like_celery(app: Any, *, level: int, logfile: str | None) -> None:
    """Set up logging as the user's app does in a worker, so that ``setup_logging`` handlers apply."""
    app.log.setup(loglevel=level, logfile=logfile, redirect_stdouts=False)
