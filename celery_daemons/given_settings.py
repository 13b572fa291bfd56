"""The types of settings in a call of ``Daemons``."""

from collections.abc import Iterable
from typing import Literal, TypedDict


class GivenSettings(TypedDict, total=False):
    """The settings of ``Settings``, with the types in which a program gives them. ``None`` means unset."""

    redis_url: str | None
    enabled: bool | None
    namespace: str | None
    heartbeat_interval: float | None
    lease_ttl: float | None
    lease_ttl_max: float | None
    monitor: bool | None
    scan_interval: float | None
    scan_timeout: float | None
    reconcile_interval: float | None
    load_factor: float | None
    vnodes: int | None
    rebalance: Literal["auto", "manual", "off"] | None
    rebalance_limit: float | None
    settle_delay: float | None
    hosts: int | None
    host_max_memory: float | None
    node_labels: Iterable[str] | None
    node_weight: float | None
    drain_timeout: float | None
    on_store_loss: Literal["stop", "keep"] | None
    http: str | None
    health_file: str | None
