"""The options of a launcher: how its daemons run, restart and are placed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, Literal, TypedDict, get_args

from celery_daemons.domain.names import check_name
from celery_daemons.errors import ConfigurationError

Isolation = Literal["shared", "process", "thread", "auto"]
Restart = Literal["permanent", "transient", "temporary"]


class GivenOptions(TypedDict, total=False):
    """The options of :class:`LauncherOptions`, with the types in which a program gives them."""

    isolation: Isolation
    restart: Restart
    backoff: float
    backoff_max: float
    max_restarts: int
    restart_period: float
    start_seconds: float
    stop_grace: float
    progress_deadline: float | None
    labels: Iterable[str] | None
    weight: float
    prune: bool


def _above_zero(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherOptions:
    """The options of a launcher. Times are in seconds."""

    isolation: Isolation = "shared"
    restart: Restart = "permanent"
    backoff: float = 0.5
    backoff_max: float = 30.0
    max_restarts: int = 5
    restart_period: float = 60.0
    start_seconds: float = 0.0
    stop_grace: float = 10.0
    progress_deadline: float | None = None
    labels: tuple[str, ...] = ()
    weight: float = 1.0
    prune: bool = False

    def check(self, launcher: str) -> None:
        """Raise :exc:`ConfigurationError` for a wrong option, with the launcher, the option, the value and the rule."""

        def rule(option: str, holds: bool, text: str) -> None:
            if not holds:
                raise ConfigurationError(f"launcher {launcher}: {option}={getattr(self, option)!r} {text}")

        for option, kind in (("isolation", Isolation), ("restart", Restart)):
            rule(option, getattr(self, option) in get_args(kind), f"must be one of {', '.join(get_args(kind))}")
        for option in ("backoff", "backoff_max", "restart_period", "stop_grace", "weight", "max_restarts"):
            rule(option, _above_zero(getattr(self, option)), "must be a number above 0")
        # The agent decodes the options by these types and would not start with others.
        rule("max_restarts", isinstance(self.max_restarts, int), "must be a whole number")
        rule("prune", isinstance(self.prune, bool), "must be True or False")
        started = _above_zero(self.start_seconds) or self.start_seconds == 0
        rule("start_seconds", started, "must be a number of 0 or more")
        rule("backoff_max", self.backoff_max >= self.backoff, f"must not be below backoff={self.backoff}")
        deadline = self.progress_deadline
        rule("progress_deadline", deadline is None or _above_zero(deadline), "must be a number above 0, or None")
        rule("labels", not isinstance(self.labels, str), "must be a list of names")
        for label in self.labels:
            check_name(label, f"launcher {launcher}: label")


def read_options(given: Mapping[str, Any], *, is_async: bool, launcher: str) -> LauncherOptions:
    """Return the checked options of a launcher; labels may be joined by commas.

    Raises :exc:`ConfigurationError` for an unknown or wrong option, and for one that does not go with ``is_async``.
    """
    known = sorted(field.name for field in fields(LauncherOptions))
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigurationError(
            f"launcher {launcher}: there is no option {unknown[0]}; the options are {', '.join(known)}"
        )
    values = dict(given)
    values.setdefault("isolation", "shared" if is_async else "process")
    if isinstance(values.get("backoff"), (int, float)):
        # A launcher with a long first delay need not set the limit too.
        values.setdefault("backoff_max", max(LauncherOptions().backoff_max, values["backoff"]))
    if "labels" in values:
        labels = values["labels"] or ()
        values["labels"] = tuple(sorted(labels.split(",") if isinstance(labels, str) else labels))
    options = LauncherOptions(**values)
    options.check(launcher)
    if options.isolation in ("shared", "auto") and not is_async:
        raise ConfigurationError(
            f"launcher {launcher}: isolation={options.isolation!r} runs on an event loop and needs an async def; "
            "use isolation='process' or 'thread' for a def"
        )
    if options.isolation == "thread" and is_async:
        raise ConfigurationError(f"launcher {launcher}: isolation='thread' needs a def; an async def runs shared")
    return options
