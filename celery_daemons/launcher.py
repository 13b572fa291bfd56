"""Launchers, the registered recipes for daemons, and the registry of an app's launchers."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, cast, overload

from celery_daemons.client.participation import Participation
from celery_daemons.domain.calls import bind_arguments, check_has_run, check_is_no_generator, signature_of
from celery_daemons.domain.factories import HasRun, Scanner
from celery_daemons.domain.names import DaemonName, LauncherName, daemon_name, launcher_name
from celery_daemons.domain.options import GivenOptions, LauncherOptions, read_options
from celery_daemons.domain.records import Address, DaemonSpec
from celery_daemons.errors import ConfigurationError, DaemonsError, UnknownLauncher
from celery_daemons.settings import Settings

if TYPE_CHECKING:
    from celery.canvas import Signature
    from celery.result import AsyncResult

P = ParamSpec("P")
D = TypeVar("D")
S = TypeVar("S", bound=Scanner)

#: Whether a recovery scanner runs in this context. A wrong spec then has a ``problem`` instead of raising: one wrong
#: row of a table must not end the scan.
scanning: Final[ContextVar[bool]] = ContextVar("scanning", default=False)


class AppDaemons(Protocol):
    """The part of :class:`~celery_daemons.Daemons` for modules that may not import the class."""

    @property
    def launchers(self) -> "Registry":
        """The launchers of the app."""

    @property
    def settings(self) -> Settings:
        """The complete, checked settings."""

    def settings_with(self, **options: Any) -> Settings:
        """Return the settings with some values replaced."""

    @property
    def participation(self) -> Participation:
        """Whether the app takes part in a cluster."""

    def spawn(
        self, name: str, launcher: str, *, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Address | None:
        """Record that a daemon should run."""


class Launcher(Generic[P]):
    """The recipe for a kind of daemon; ``P`` are the parameters of its function after the context.

    ``factory`` is an ``async def``, a ``def`` or a class with a method ``run(ctx, …)``. It is called with a
    :class:`~celery_daemons.DaemonContext` (for a ``def``: a :class:`~celery_daemons.BlockingDaemonContext`) and the
    arguments of the spec. ``recovery_scanner`` is called without arguments and returns an iterable, a generator or an
    async generator of :class:`~celery_daemons.DaemonSpec`, or of lists of these.

    ``options`` (times in seconds): ``isolation``, ``restart``, ``backoff``, ``backoff_max``, ``max_restarts``,
    ``restart_period``, ``start_seconds``, ``stop_grace``, ``progress_deadline``, ``labels``, ``weight`` and ``prune``.
    They are checked when the launcher is registered.
    """

    @overload
    def __init__(
        self,
        factory: type[HasRun[Any, P, object]],
        recovery_scanner: Scanner | None = None,
        **options: Unpack[GivenOptions],
    ) -> None: ...
    @overload
    def __init__(
        self,
        factory: Callable[Concatenate[Any, P], object],
        recovery_scanner: Scanner | None = None,
        **options: Unpack[GivenOptions],
    ) -> None: ...
    def __init__(self, factory: Callable[..., object], recovery_scanner: Scanner | None = None, **options: Any) -> None:
        self.factory: Callable[..., Any] = factory
        self.scanner = recovery_scanner
        self.name = LauncherName("")
        self.task: Any = None
        self._daemons: AppDaemons | None = None
        self._given: Mapping[str, Any] = options
        self.options = LauncherOptions()
        self._signature: inspect.Signature | None = None

    def bind(self, name: str, daemons: AppDaemons) -> None:
        """Set the name and the :class:`~celery_daemons.Daemons` of this launcher, and check the factory and options.

        Raises :exc:`~celery_daemons.ConfigurationError` and :exc:`~celery_daemons.InvalidName`.
        """
        self.name = launcher_name(name)
        if not callable(self.factory):
            raise ConfigurationError(
                f"launcher {name}: factory {self.factory!r} is not callable; "
                "give it an async def, a def or a class with run"
            )
        code = getattr(self.factory, "run", None) if inspect.isclass(self.factory) else self.factory
        check_is_no_generator(code, name)
        if inspect.isclass(self.factory) and not callable(getattr(self.factory, "run", None)):
            raise ConfigurationError(f"launcher {name}: class {self.factory.__name__} has no method run(ctx, …)")
        if self.scanner is not None and not callable(self.scanner):
            raise ConfigurationError(f"launcher {name}: recovery_scanner {self.scanner!r} is not callable")
        self.options = read_options(self._given, is_async=self.is_async, launcher=name)
        self._signature = signature_of(self.factory)
        self._daemons = daemons

    @property
    def is_async(self) -> bool:
        """Whether the daemons are coroutines."""
        factory: Any = self.factory
        code = cast(Any, factory).run if inspect.isclass(factory) else factory
        return inspect.iscoroutinefunction(code) or inspect.iscoroutinefunction(getattr(code, "__call__", None))  # noqa: B004

    def recovery_scanner(self, scanner: S) -> S:
        """Decorate the function that lists the daemons that should run, and return the function unchanged.

        Raises :exc:`~celery_daemons.ConfigurationError` if the launcher already has a scanner.
        """
        if self.scanner is not None:
            raise ConfigurationError(f"launcher {self.name} has a recovery scanner already")
        if not callable(scanner):
            raise ConfigurationError(f"launcher {self.name}: recovery_scanner {scanner!r} is not callable")
        self.scanner = scanner
        return scanner

    def start(self, ctx: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Call the factory, or ``run`` of a new instance.

        Returns a coroutine if :attr:`is_async`; otherwise returns when the daemon has ended. Raises NotADaemon if the
        function returned an awaitable or a generator.
        """
        factory: Any = self.factory
        if inspect.isclass(factory):
            factory = cast(Any, factory)().run
        result = factory(ctx, *args, **kwargs)
        if not self.is_async:
            check_has_run(result, self.name)
        return result

    def spec(self, name: str, /, *args: P.args, **kwargs: P.kwargs) -> DaemonSpec:
        """Return a spec: daemon ``name`` should run with these arguments. A recovery scanner yields such specs.

        Raises :exc:`~celery_daemons.InvalidName`, and :exc:`~celery_daemons.ConfigurationError` for arguments that the
        launcher does not take. While a recovery scanner runs, the spec has the error as its ``problem`` instead, and
        the scan reports the problem.
        """
        try:
            daemon_name(name)
            given, named = self.bound(name, args, kwargs)
        except DaemonsError as error:
            if not scanning.get():
                raise
            return DaemonSpec(name=DaemonName(str(name)), launcher=self.name, problem=str(error))
        return DaemonSpec(name=DaemonName(name), launcher=self.name, args=tuple(given), kwargs=named)

    def bound(self, name: str, args: Any, kwargs: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return the arguments bound to the launcher's parameters, the same for each way to write a call.

        Raises :exc:`~celery_daemons.ConfigurationError` with the parameter.
        """
        if self._signature is None:
            return args, kwargs
        return bind_arguments(self._signature, args, kwargs, name=name, launcher=self.name)

    def spawn(self, name: str, /, *args: P.args, **kwargs: P.kwargs) -> Address | None:
        """Record that daemon ``name`` should run with these arguments; see :meth:`celery_daemons.Daemons.spawn`.

        Raises :exc:`~celery_daemons.ConfigurationError` if the launcher is not registered.
        """
        if self._daemons is None:
            raise ConfigurationError("this launcher is not registered: use daemons.register_launcher(name, launcher)")
        return self._daemons.spawn(name, self.name, args=args, kwargs=kwargs)

    def delay(self, name: str, /, *args: P.args, **kwargs: P.kwargs) -> "AsyncResult[dict[str, Any] | None]":
        """Send the Celery task that spawns daemon ``name``; the result of the task is the address as a dictionary."""
        return self.task.delay(name, *args, **kwargs)

    def apply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> "AsyncResult[dict[str, Any] | None]":
        """Send the Celery task of :meth:`delay` with Celery's options; ``args`` begins with the daemon's name."""
        return self.task.apply_async(args, kwargs, **options)

    @overload
    def s(self, name: str, /, *args: P.args, **kwargs: P.kwargs) -> "Signature[dict[str, Any] | None]": ...
    @overload
    def s(self, /, **kwargs: Any) -> "Signature[dict[str, Any] | None]": ...
    def s(self, /, *args: Any, **kwargs: Any) -> "Signature[dict[str, Any] | None]":
        """Return a signature of the task, for Celery's canvas; without the name, the result before it is the name."""
        return self.task.s(*args, **kwargs)

    def si(self, name: str, /, *args: P.args, **kwargs: P.kwargs) -> "Signature[dict[str, Any] | None]":
        """Return an immutable signature of the task, for Celery's canvas."""
        return self.task.si(name, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the factory directly, for tests of the daemon's code."""
        return self.factory(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Launcher {self.name or '(not registered)'}>"


class Registry(Mapping[str, Launcher[...]]):
    """The launchers of an app by name.

    Indexing raises :exc:`~celery_daemons.UnknownLauncher` for a name that is not registered.
    """

    def __init__(self) -> None:
        self._launchers: dict[str, Launcher[...]] = {}

    def add(self, launcher: Launcher[...]) -> None:
        """Add a bound launcher."""
        self._launchers[launcher.name] = launcher

    def unregister(self, name: str) -> Launcher[...]:
        """Remove and return a launcher. Raises :exc:`~celery_daemons.UnknownLauncher`.

        Only for this process: a running worker reported its launchers to the cluster when it started.
        """
        launcher = self[name]
        del self._launchers[launcher.name]
        return launcher

    @overload
    def get(self, name: str, default: None = None, /) -> Launcher[...] | None: ...
    @overload
    def get(self, name: str, default: Launcher[...] | D, /) -> Launcher[...] | D: ...
    def get(self, name: str, default: object = None, /) -> object:
        """Return a launcher, or ``default`` if there is none of that name."""
        return self._launchers.get(LauncherName(name), default)

    def __getitem__(self, name: str) -> Launcher[...]:
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
        """Return a launcher's options, or ``None`` if this app does not register the launcher."""
        return self._launchers[name].options if name in self._launchers else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._launchers)

    def __len__(self) -> int:
        return len(self._launchers)


def has_daemons(app: Any) -> bool:
    """Return whether a Celery app carries a :class:`~celery_daemons.Daemons`."""
    return getattr(app, "_celery_daemons", None) is not None


def attach_daemons(app: Any, daemons: AppDaemons) -> None:
    """Let a Celery app carry ``daemons``. Raises ConfigurationError if the app already carries an instance."""
    if has_daemons(app):
        raise ConfigurationError(
            f"the Celery app {app.main or app!r} already has a Daemons; Daemons.of(app) returns it"
        )
    app._celery_daemons = daemons


def daemons_of_app(app: Any) -> AppDaemons:
    """Return the :class:`~celery_daemons.Daemons` of a Celery app. Raises ConfigurationError if there is none."""
    if not has_daemons(app):
        raise ConfigurationError(
            f"the Celery app {app.main or app!r} has no Daemons: write `daemons = Daemons(app)` next to the app"
        )
    daemons: AppDaemons = app._celery_daemons
    return daemons


def registry_of(app: Any) -> Registry:
    """Return the launchers of a Celery app. Raises ConfigurationError if the app has no Daemons."""
    return daemons_of_app(app).launchers
