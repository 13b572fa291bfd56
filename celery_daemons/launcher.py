"""Launchers: the registered recipes for daemons, and the registry that holds them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from json import JSONDecoder
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from kombu.utils import json

from celery_daemons.domain.names import LauncherName, daemon_name, launcher_name
from celery_daemons.domain.options import LauncherOptions
from celery_daemons.domain.records import Address, DaemonSpec
from celery_daemons.errors import ConfigurationError, UnknownLauncher

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import AsyncResult

F = TypeVar("F", bound=Callable[..., Any])

#: Made once: it knows the types that are registered with Kombu, also those that are later.
_encoder = json.JSONEncoder(sort_keys=True)
_plain = JSONDecoder()
_OPTIONS = frozenset(field.name for field in fields(LauncherOptions))


class Spawns(Protocol):
    """What a launcher needs of the cluster it is registered with."""

    def spawn(
        self, name: str, launcher: str, *, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Address | None:
        """Record that a daemon should run."""


class Launcher:
    """The recipe for one kind of daemon.

    ``factory`` is an ``async def``, a ``def`` or a class with ``run(ctx, …)``; it is called with a
    :class:`DaemonContext` and the arguments of the spec. ``recovery_scanner`` is called without arguments and returns
    an iterable, a generator or an async generator of specs, or of lists of them. The options are those of
    :class:`LauncherOptions`.
    """

    def __init__(
        self,
        factory: Callable[..., Any],
        recovery_scanner: Callable[[], Any] | None = None,
        **options: Any,
    ) -> None:
        self.factory = factory
        self.scanner = recovery_scanner
        self.name = LauncherName("")
        self.task: Any = None
        self._cluster: Spawns | None = None
        self._given = options
        self.options = LauncherOptions()

    def bind(self, name: str, cluster: Spawns) -> None:
        """Take a name, and check what was given. Raises ConfigurationError, InvalidName."""
        self.name = launcher_name(name)
        if not callable(self.factory):
            raise ConfigurationError(
                f"launcher {name}: factory {self.factory!r} is not callable; "
                "give it an async def, a def or a class with run"
            )
        if inspect.isclass(self.factory) and not callable(getattr(self.factory, "run", None)):
            raise ConfigurationError(f"launcher {name}: class {self.factory.__name__} has no method run(ctx, …)")
        if self.scanner is not None and not callable(self.scanner):
            raise ConfigurationError(f"launcher {name}: recovery_scanner {self.scanner!r} is not callable")
        unknown = sorted(set(self._given) - _OPTIONS)
        if unknown:
            raise ConfigurationError(
                f"launcher {name}: there is no option {unknown[0]}; the options are {', '.join(sorted(_OPTIONS))}"
            )
        given = dict(self._given)
        given.setdefault("isolation", "shared" if self.is_async else "process")
        if "labels" in given:
            labels = given["labels"] or ()
            given["labels"] = tuple(sorted(labels.split(",") if isinstance(labels, str) else labels))
        self.options = LauncherOptions(**given)
        self.options.check(name)
        if self.options.isolation == "shared" and not self.is_async:
            raise ConfigurationError(
                f"launcher {name}: isolation='shared' runs on an event loop and needs an async def; "
                "use isolation='process' or 'thread' for a def"
            )
        if self.options.isolation == "thread" and self.is_async:
            raise ConfigurationError(f"launcher {name}: isolation='thread' needs a def; an async def runs shared")
        self._cluster = cluster

    @property
    def is_async(self) -> bool:
        """Whether the daemons are coroutines."""
        factory: Any = self.factory
        code = cast(Any, factory).run if inspect.isclass(factory) else factory
        return inspect.iscoroutinefunction(code) or inspect.iscoroutinefunction(getattr(code, "__call__", None))  # noqa: B004

    def recovery_scanner(self, scanner: F) -> F:
        """Decorate the function that lists what should be running; returns it unchanged."""
        if self.scanner is not None:
            raise ConfigurationError(f"launcher {self.name} has a recovery scanner already")
        if not callable(scanner):
            raise ConfigurationError(f"launcher {self.name}: recovery_scanner {scanner!r} is not callable")
        self.scanner = scanner
        return scanner

    def start(self, ctx: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the recipe: a coroutine for coroutine daemons; a plain one runs until it returns."""
        factory: Any = self.factory
        if inspect.isclass(factory):
            factory = cast(Any, factory)().run
        return factory(ctx, *args, **kwargs)

    def spec(self, name: str, /, *args: Any, **kwargs: Any) -> DaemonSpec:
        """The wish that a daemon of this kind run under ``name``. Raises InvalidName."""
        return DaemonSpec(name=daemon_name(name), launcher=self.name, args=args, kwargs=kwargs)

    def spawn(self, name: str, /, *args: Any, **kwargs: Any) -> Address | None:
        """Record that a daemon of this kind should run; see :meth:`Daemons.spawn`."""
        if self._cluster is None:
            raise ConfigurationError("this launcher is not registered: use daemons.register_launcher(name, launcher)")
        return self._cluster.spawn(name, self.name, args=args, kwargs=kwargs)

    def delay(self, name: str, /, *args: Any, **kwargs: Any) -> "AsyncResult[Any]":
        """Send the Celery task that records the spawn; its result is the address."""
        return self.task.delay(name, *args, **kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> "AsyncResult[Any]":
        """The same with Celery's options; ``args`` begins with the daemon's name."""
        return self.task.apply_async(args, kwargs, **options)

    def s(self, *args: Any, **kwargs: Any) -> "Signature[Any]":
        """A signature of the task, for canvas."""
        return self.task.s(*args, **kwargs)

    def si(self, *args: Any, **kwargs: Any) -> "Signature[Any]":
        """An immutable signature of the task."""
        return self.task.si(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the factory itself, as a test of it would."""
        return self.factory(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Launcher {self.name or '(not registered)'}>"


class Registry(Mapping[str, Launcher]):
    """The launchers of one app by name."""

    def __init__(self) -> None:
        self._launchers: dict[str, Launcher] = {}

    def add(self, launcher: Launcher) -> None:
        """Add a bound launcher."""
        self._launchers[launcher.name] = launcher

    def __getitem__(self, name: str) -> Launcher:
        try:
            return self._launchers[name]
        except KeyError:
            known = ", ".join(sorted(self._launchers)) or "none"
            raise UnknownLauncher(
                f"no launcher {name!r} is registered (registered: {known}); check the name, and that the module that "
                "registers it is imported: daemons.autodiscover() imports daemons.py of the packages that it is given"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._launchers

    def options_of(self, name: LauncherName) -> LauncherOptions | None:
        """Return a launcher's options; ``None`` for one that is not registered here."""
        return self._launchers[name].options if name in self._launchers else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._launchers)

    def __len__(self) -> int:
        return len(self._launchers)


def encode_arguments(name: str, args: Any, kwargs: Any) -> str:
    """The call as text, with the types that Celery's own JSON carries. Raises ConfigurationError."""
    # A string is a sequence too, of letters that nobody meant.
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes)):
        raise ConfigurationError(
            f"daemon {name}: args is of type {type(args).__name__}; give a list or a tuple, as in ['x']"
        )
    if not isinstance(kwargs, Mapping):
        raise ConfigurationError(f"daemon {name}: kwargs is of type {type(kwargs).__name__}; give a dictionary")
    try:
        return str(_encoder.encode([list(args), dict(kwargs)]))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"daemon {name}: its arguments do not serialise to JSON ({error}); pass numbers, strings, dates, UUIDs, "
            "lists and dictionaries of them, and open the rest inside the daemon"
        ) from error


def decode_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The call back from its text."""
    # Kombu's decoder asks a function about every object; only what has a type beyond JSON needs it.
    args, kwargs = json.loads(text) if '"__type__"' in text else _plain.decode(text)
    return tuple(args), kwargs


def registry_of(app: Any) -> Registry:
    """The launchers of a Celery app; raises ConfigurationError if it has no ``Daemons``."""
    daemons = getattr(app, "_celery_daemons", None)
    if daemons is None:
        raise ConfigurationError(
            f"the Celery app {app.main or app!r} has no Daemons: write `daemons = Daemons(app)` beside it"
        )
    registry: Registry = daemons.launchers
    return registry
