"""Decide what node leases call for: confirm the Redis server, report a mass failure, sweep the nodes that are lost."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.store.queries import Overview

#: Seconds after the end of a lease at which the lease is checked: the server's clock is read in whole milliseconds.
_SWEEP_DELAY: Final = 0.002
#: The least seconds between two checks while a decision has to wait; with less, the monitor would load Redis.
_MIN_INTERVAL: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseActions:
    """The actions that a check of the leases calls for, and the seconds until the next check.

    ``confirm_server`` is the run id of a server to confirm, ``mass_failure`` a cause to write to the journal.
    """

    confirm_server: str | None
    mass_failure: str | None
    sweep: tuple[NodeName, ...]
    next_check_in: float


class LeaseWatcher:
    """Check node leases. Pure: an overview comes in, actions go out."""

    def __init__(self, *, reconcile_interval: float, hold_off: HoldOff, clock: Callable[[], float]) -> None:
        self._reconcile_interval = reconcile_interval
        self._hold_off = hold_off
        self._clock = clock

    def check(self, overview: Overview, *, server: str) -> LeaseActions:
        """Return what the leases call for; ``server`` is the run id of the server that gave the overview."""
        hold_off, now = self._hold_off, self._clock()
        hold_off.on_data_age(overview.age_ms)
        hold_off.on_cluster_silence(overview.first_beat_age_ms)
        confirms = hold_off.on_server(server, confirmed=overview.server)
        mass_failure = hold_off.on_mass_loss(overview.leases)
        ended = tuple(node for node, left in overview.leases.items() if left <= 0)
        waits = [left / 1000 + _SWEEP_DELAY for left in overview.leases.values() if left > 0]
        if ended:
            waits.append(max(_MIN_INTERVAL, hold_off.no_sweep_before - now, hold_off.no_action_before - now))
        if overview.server != server and not confirms:
            # No node starts a daemon before the server is confirmed.
            waits.append(max(_MIN_INTERVAL, hold_off.no_action_before - now))
        return LeaseActions(
            confirm_server=server if confirms else None,
            mass_failure=mass_failure,
            sweep=ended if hold_off.may_sweep else (),
            next_check_in=min([self._reconcile_interval, *waits]),
        )
