"""Boot messages for tests of an agent, and of the process that starts one."""

import os
from typing import Any

from celery_daemons.settings import Settings
from celery_daemons.wire.messages import Boot


def new_boot(**fields: Any) -> Boot:
    """Return the boot message of this process for the node ``w1@test``, whose Redis does not listen."""
    defaults = {
        "node": "w1@test",
        "app": "proj",
        "settings": Settings(redis_url="redis://localhost:1/0"),
        "sys_path": [],
        "queue": "q",
        "spawn_queue": "q.spawn",
        "host": "test",
        "worker_pid": os.getpid(),
        "launchers": {},
    }
    return Boot(**{**defaults, **fields})
