"""The boot message that a worker sends to its agent."""

import logging
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery.utils.nodenames import node_format

from celery_daemons.domain.names import node_name
from celery_daemons.forkserver.apploader import import_string
from celery_daemons.launcher import registry_of
from celery_daemons.settings import Settings
from celery_daemons.wire import spawn_task
from celery_daemons.wire.messages import Boot


def boot_for(
    app: Any,
    settings: Settings,
    *,
    node: str,
    hosting: bool = True,
    no_ticks: str = "",
    loglevel: int | None = None,
    logfile: str | None = None,
) -> Boot:
    """Return the boot message for a node of this process. Raises ConfigurationError or InvalidName.

    ``no_ticks`` is why the process sends no Tick.
    """
    registry = registry_of(app)
    if settings.health_file is not None:
        # As in Celery's --logfile: workers of a machine share their settings, and must not share the file.
        settings = replace(settings, health_file=node_format(settings.health_file, node))
    return Boot(
        node=node_name(node),
        app=import_string(app),
        settings=settings,
        sys_path=[str(Path(part).absolute()) for part in sys.path],
        queue=spawn_task.task_queue_name(settings.namespace, node),
        spawn_queue=spawn_task.spawn_queue_name(settings.namespace, node),
        host=socket.gethostname(),
        worker_pid=os.getpid(),
        launchers={launcher.name: launcher.options for launcher in registry.values()},
        scanners=sorted(launcher.name for launcher in registry.values() if launcher.scanner is not None),
        hosting=hosting,
        no_ticks=no_ticks,
        loglevel=loglevel or logging.INFO,
        logfile=logfile,
        python_path=os.environ.get("PYTHONPATH"),
    )
