"""Keep named, long-lived daemons running on the Celery workers you already have, each on one worker at a time.

Public names are imported at first use: every agent and every ``celery`` command imports this package and uses little
of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery_daemons.app import Daemons
    from celery_daemons.client.actor import acting_as
    from celery_daemons.client.address_book import AddressBook
    from celery_daemons.domain.rebalance import Move
    from celery_daemons.domain.records import Address, DaemonRecord, DaemonSpec, Node
    from celery_daemons.domain.states import DaemonStatus, NodeStatus
    from celery_daemons.errors import (
        ClaimLost,
        ConfigurationError,
        DaemonsError,
        Fenced,
        InvalidName,
        LayoutMismatch,
        LeaseLost,
        SpawnTimeout,
        SpecConflict,
        StoreUnavailable,
        UnknownLauncher,
    )
    from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
    from celery_daemons.launcher import Launcher

__version__ = "0.1.0"

#: The modules of the public names.
_EXPORTS = {
    "celery_daemons.app": ("Daemons",),
    "celery_daemons.client.actor": ("acting_as",),
    "celery_daemons.client.address_book": ("AddressBook",),
    "celery_daemons.domain.rebalance": ("Move",),
    "celery_daemons.domain.records": ("Address", "DaemonRecord", "DaemonSpec", "Node"),
    "celery_daemons.domain.states": ("DaemonStatus", "NodeStatus"),
    "celery_daemons.errors": (
        "ClaimLost",
        "ConfigurationError",
        "DaemonsError",
        "Fenced",
        "InvalidName",
        "LayoutMismatch",
        "LeaseLost",
        "SpawnTimeout",
        "SpecConflict",
        "StoreUnavailable",
        "UnknownLauncher",
    ),
    "celery_daemons.launcher": ("Launcher",),
    "celery_daemons.host.context": ("BlockingDaemonContext", "DaemonContext"),
}
_MODULE_OF = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "Address",
    "AddressBook",
    "BlockingDaemonContext",
    "ClaimLost",
    "ConfigurationError",
    "DaemonContext",
    "DaemonRecord",
    "DaemonSpec",
    "DaemonStatus",
    "Daemons",
    "DaemonsError",
    "Fenced",
    "InvalidName",
    "Launcher",
    "LayoutMismatch",
    "LeaseLost",
    "Move",
    "Node",
    "NodeStatus",
    "SpawnTimeout",
    "SpecConflict",
    "StoreUnavailable",
    "UnknownLauncher",
    "acting_as",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
