"""How many host processes fit into the limit of open files, which the agent and its fork server both have."""

import contextlib
import errno
import resource
from typing import Final

#: Descriptors of the agent for each host: its socket, its pidfd, and two pipes of multiprocessing. The fork server
#: needs fewer.
PER_HOST: Final = 4
#: Descriptors for everything else: Redis, the worker, the event loop, the monitor, log files, and a fork under way.
RESERVED: Final = 48
#: The limit that is set at most. Some programs that a daemon may start visit every descriptor up to their limit.
_HIGHEST: Final = 65_536


def raise_limit() -> None:
    """Raise the soft limit of open files to the hard limit, as far as useful; child processes inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _HIGHEST if hard == resource.RLIM_INFINITY else min(hard, _HIGHEST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_room(hosts: int) -> None:
    """Raise OSError with the limit if another host besides ``hosts`` does not fit.

    Without this check, the agent would run out of descriptors in any place, and could not reach Redis either.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    most = max(0, (soft - RESERVED) // PER_HOST)
    if hosts >= most:
        raise OSError(
            errno.EMFILE,
            f"{most} host processes fit into the limit of {soft} open files; raise it (ulimit -n, or LimitNOFILE of "
            "systemd), or start more nodes",
        )
