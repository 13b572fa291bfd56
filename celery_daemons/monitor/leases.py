"""Decide what node leases call for: confirm the Redis server, report a mass failure, sweep the nodes that are lost."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from celery_daemons.domain.names import NodeName
from celery_daemons.domain.server_clock import Segment
from celery_daemons.monitor.hold_off import HoldOff
from celery_daemons.monitor.lease_clock import LeaseClock
from celery_daemons.store.queries import Overview
from celery_daemons.store.server_pin import server_id

#: Seconds after the end of a lease at which the lease is checked: the server's clock is read in whole milliseconds.
_SWEEP_DELAY: Final = 0.002
#: The least seconds between two checks while a decision has to wait; with less, the monitor would load Redis.
_MIN_INTERVAL: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseActions:
    """The actions that a check of the leases calls for, and the seconds until the next check.

    ``confirm_server`` is the id of a server to confirm, ``mass_failure`` a cause to write to the journal. ``sweep``
    has, for each node to sweep, the end of its lease as Redis had it.
    """

    confirm_server: str | None
    mass_failure: str | None
    sweep: Mapping[NodeName, int]
    next_check_in: float


class LeaseWatcher:
    """Check node leases. Pure: an overview comes in, actions go out."""

    def __init__(
        self,
        *,
        reconcile_interval: float,
        hold_off: HoldOff,
        clock: Callable[[], float],
        segments: Iterable[Segment] = (),
    ) -> None:
        """``segments`` are measurements of Redis's clock from before the monitor was started."""
        self._reconcile_interval = reconcile_interval
        self._hold_off = hold_off
        self._clock = clock
        self._lease_clock = LeaseClock(segments, clock)

    def check(self, overview: Overview, *, server: str, sent: float | None = None) -> LeaseActions:
        """Return what the leases call for.

        ``server`` is the run id of the server that gave the overview, ``sent`` when the overview was requested, by
        default now.
        """
        server = server_id(server, overview.history)
        hold_off, now, leases = self._hold_off, self._clock(), self._lease_clock
        hold_off.on_longest_lease(overview.longest_lease_ms / 1000)
        leases.observe(overview, sent=now if sent is None else sent, window=hold_off.lease)
        age_ms = leases.age_ms("data", overview.age_ms, overview)
        if not overview.server or overview.server != server:
            # A monitor has waited for the data before it confirmed this server.
            hold_off.on_data_age(age_ms)
        hold_off.on_cluster_silence(leases.age_ms("first beat", overview.first_beat_age_ms, overview))
        confirms = hold_off.on_server(server, confirmed=overview.server)
        left_ms = leases.left_ms(overview, longest=hold_off.lease)
        mass_failure = hold_off.on_mass_loss(left_ms, overview.lease_lengths)
        ended = {node: leases.end_ms(node) for node, left in left_ms.items() if left <= 0}
        waits = [left / 1000 + _SWEEP_DELAY for left in left_ms.values() if left > 0]
        if ended:
            waits.append(max(_MIN_INTERVAL, hold_off.no_sweep_before - now, hold_off.no_action_before - now))
        if overview.server != server and not confirms:
            # No node starts a daemon before the server is confirmed.
            waits.append(max(_MIN_INTERVAL, hold_off.no_action_before - now))
        return LeaseActions(
            confirm_server=server if confirms else None,
            mass_failure=mass_failure,
            sweep=ended if hold_off.may_sweep else {},
            next_check_in=min([self._reconcile_interval, *waits]),
        )
