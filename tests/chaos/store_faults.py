"""A Redis that loses its data, comes back with old data, hangs, or whose clock is set."""

import random
import time

from tests.chaos.chaos_cluster import ChaosCluster
from tests.chaos.fault import Cause, Fault
from tests.chaos.members import LEASES, Node

#: Seconds by which Redis's clock is set: less than a heartbeat, less than a lease, more than every lease, hours.
_STEPS = (0.2, 1.0, 1.7, 3.0, 8.0, 3600.0)
#: Redis's clock stays within so many seconds of the real time.
_FARTHEST = 7200.0
#: Seconds between two steps, more than the longest lease: that a clock is set forward and back between two measurements
#: is a documented limit.
_BETWEEN_STEPS = max(LEASES) + 1.0
#: The longest time that Redis hangs, in seconds: one and a half of the shortest leases.
_LONGEST_HANG = 3.0


def flush(cluster: ChaosCluster, _: Node, __: random.Random) -> Fault | None:
    """Redis loses its data."""
    now = time.monotonic()
    if not _has_caught_up(cluster):
        return None
    with cluster.server.client() as redis:
        redis.flushall()
    return Fault("Redis flushed", now)


def restart_empty(cluster: ChaosCluster, _: Node, __: random.Random) -> Fault | None:
    """Redis restarts without its data."""
    now = time.monotonic()
    if not _has_caught_up(cluster):
        return None
    cluster.server.restart(keep_data=False)
    return Fault("Redis restarted empty", now)


def restart_old(cluster: ChaosCluster, _: Node, __: random.Random) -> Fault | None:
    """Redis restarts with the data that it last saved."""
    now = time.monotonic()
    if not _has_caught_up(cluster):
        return None
    cluster.server.kill()
    cluster.server.start()
    return Fault("Redis killed, old data", now)


def save(cluster: ChaosCluster, _: Node, __: random.Random) -> Fault:
    """Redis saves. This is not a fault, but a later restart may load this data."""
    now = time.monotonic()
    cluster.save()
    return Fault("Redis saved", now)


def restore(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault | None:
    """Redis restarts with a snapshot of any age."""
    if not cluster.snapshots or not _has_caught_up(cluster):
        return None
    now = time.monotonic()
    cluster.restore(rng.choice(cluster.snapshots))
    return Fault("Redis restored, any snapshot", now)


def hang(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault:
    """Redis hangs."""
    now = time.monotonic()
    cluster.server.pause()
    time.sleep(rng.uniform(0.1, _LONGEST_HANG))
    cluster.server.resume()
    return Fault("Redis hung", now)


def set_clock(cluster: ChaosCluster, _: Node, rng: random.Random) -> Fault | None:
    """Redis's clock is set, forward or back."""
    now, step = time.monotonic(), rng.choice(_STEPS) * rng.choice((-1, 1))
    if now < cluster.no_step_before:
        return None
    if abs(cluster.clock.ahead + step) > _FARTHEST:
        step = -step
    _step(cluster, step)
    return Fault(f"Redis's clock set {'forward' if step > 0 else 'back'}, {_size(step)}", now)


def _step(cluster: ChaosCluster, seconds: float) -> None:
    cluster.step_clock(seconds)
    cluster.no_step_before = time.monotonic() + _BETWEEN_STEPS


def _has_caught_up(cluster: ChaosCluster) -> bool:
    """Let Redis's clock show a later time than ever before; return False if it may not be set now.

    That tokens can decrease if data is lost while the clock is behind is a documented limit.
    """
    if not cluster.behind:
        return True
    if time.monotonic() < cluster.no_step_before:
        return False
    _step(cluster, cluster.behind + 1.0)
    return True


def _size(step: float) -> str:
    size = abs(step)
    if size < min(LEASES):
        return "less than a lease"
    return "more than a lease" if size < _STEPS[-1] else "an hour"


#: What happens how often.
WEIGHTS: dict[Cause, int] = {
    flush: 3,
    restart_empty: 2,
    restart_old: 2,
    save: 3,
    restore: 3,
    hang: 3,
    set_clock: 10,
}
