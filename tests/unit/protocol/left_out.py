"""What the canonical form of a world leaves out of objects and of the server's data; canonical.py explains why."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from celery_daemons.domain.placement import NodeLoads
from celery_daemons.domain.planner import Planner
from celery_daemons.domain.records import BookRow, NodeRow
from celery_daemons.monitor.counts_check import CountsCheck
from celery_daemons.monitor.departed import DepartedNodes
from celery_daemons.monitor.rebalancer import Rebalancer
from celery_daemons.node.node_lease import NodeLease
from celery_daemons.node.outbox import Outbox
from celery_daemons.node.supervision.local_daemon import LocalDaemon, LocalHost
from celery_daemons.store.replica import Replica
from tests.unit.protocol.agents import ModelAgent
from tests.unit.protocol.calls import Caller
from tests.unit.protocol.hosts import ModelHosts
from tests.unit.protocol.monitors import ModelBroker, ModelMonitor

#: Fields that affect no decision, or follow from others.
_LEFT_OUT: Mapping[type, frozenset[str]] = {
    BookRow: frozenset({"pid", "started_ms"}),
    CountsCheck: frozenset({"_due"}),
    Caller: frozenset({"_world", "_agent", "_store", "_name"}),
    DepartedNodes: frozenset({"_next_run_at", "_removed", "_seen"}),
    LocalDaemon: frozenset({"error", "trace", "serial"}),
    LocalHost: frozenset({"opened_at", "pid", "id"}),
    ModelAgent: frozenset({"world", "rate"}),
    ModelBroker: frozenset({"fates", "sent"}),
    ModelHosts: frozenset({"_events", "_note_start"}),
    ModelMonitor: frozenset({"world", "measured", "_witness"}),
    NodeLease: frozenset({"_row", "_errors", "_sent_at", "_reported_taken"}),
    NodeLoads: frozenset({"_rings", "_fitting"}),
    NodeRow: frozenset({"pid", "started_ms"}),
    Outbox: frozenset({"generation"}),
    Planner: frozenset({"_fitting_nodes", "_weights"}),
    Rebalancer: frozenset({"_wave_ends_at"}),
    Replica: frozenset({"position"}),
}
#: Fields that are the same in every state, by their names.
_CONSTANT = frozenset(
    {
        "_clock",
        "_keys",
        "_launchers",
        "_node",
        "_on_page",
        "_options",
        "_registry",
        "_report_progress",
        "_rng",
        "_settings",
    }
)
#: Keys of the server, by a part of their names, and fields of its records.
KEYS_LEFT_OUT = re.compile(rb":(clock|journal|traces|counts|unhealthy|.*generation.*)$")
_FIELDS_LEFT_OUT = frozenset({"pid", "started_ms"})


def plain(value: Any) -> Any:
    """Return a value of the server as Python's own types."""
    if isinstance(value, bytes):
        return value
    if hasattr(value, "getall"):
        return {field: _record(raw) for field, raw in value.getall().items()}
    return {key: int(score) for key, score in value.items()} if hasattr(value, "items") else set(value)


def _record(raw: bytes) -> Any:
    if raw[:1] != b"{":
        return raw
    return {name: value for name, value in json.loads(raw).items() if name not in _FIELDS_LEFT_OUT}


def fields_of(value: object) -> tuple[str, ...]:
    """Return the fields that count, of an object and all others of its kind."""
    kind = type(value)
    left_out = _CONSTANT | _LEFT_OUT.get(kind, frozenset())
    if is_dataclass(kind):
        names = [field.name for field in fields(kind)]
    else:
        names = sorted(getattr(kind, "__struct_fields__", None) or vars(value))
    return tuple(name for name in names if name not in left_out)
