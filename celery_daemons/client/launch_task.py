"""The Celery task of a launcher, which spawns a daemon."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

from celery_daemons.domain.records import Address

#: Seconds that a launcher's task waits for the daemon to run, to return the address.
_TASK_WAIT: Final = 10.0


def launch_task(
    spawn: Callable[..., Address | None], launcher: str, *, runs: Callable[[], bool]
) -> Callable[..., dict[str, Any] | None]:
    """Return the function of the task, which waits for the daemon only if ``runs`` says that daemons run at all."""

    def spawn_daemon(name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        """Record that a daemon should run, and return the address.

        Raises SpawnTimeout, with the reason, if the daemon does not run in time: the daemon is recorded, and starts as
        soon as possible. Returns ``None`` where no daemons run, as in tests of tasks.
        """
        address = spawn(name, launcher, args=args, kwargs=kwargs, wait=_TASK_WAIT if runs() else None)
        return asdict(address) if address else None

    return spawn_daemon
