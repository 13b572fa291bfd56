"""``Daemons(app)``: the public entry point that turns the workers of a Celery app into a cluster."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ParamSpec, Unpack, cast, overload

from celery_daemons.aio import Aio, AnyCluster
from celery_daemons.client.address_book import AddressBook
from celery_daemons.client.app_settings import check_overrides, read_settings
from celery_daemons.client.blocking import blocking, blocking_iterator
from celery_daemons.client.blocking_client import ClusterClient
from celery_daemons.client.cluster_client import AsyncClusterClient
from celery_daemons.client.launch_task import launch_task
from celery_daemons.client.lookups import Lookups
from celery_daemons.client.loop_io import LoopIO
from celery_daemons.client.participation import Participation
from celery_daemons.client.recorded import RecordedCluster
from celery_daemons.domain.options import GivenOptions
from celery_daemons.errors import ConfigurationError
from celery_daemons.given_settings import GivenSettings
from celery_daemons.launcher import Launcher, Registry, attach_daemons, daemons_of_app
from celery_daemons.launcher_decorator import (
    AsyncClass,
    AsyncFunction,
    BlockingClass,
    BlockingFunction,
    LauncherDecorator,
)
from celery_daemons.settings import Settings
from celery_daemons.store.keys import Keys
from celery_daemons.wire.spawn_task import allow_task_queues
from celery_daemons.worker.command_line import worker_options

if TYPE_CHECKING:
    from celery import Celery

P = ParamSpec("P")


class Daemons:
    """The daemons of a Celery app: the launchers, and calls to find and manage daemons.

    The constructor does no I/O. ``overrides`` are settings without their prefix, for example ``namespace="blue"``; they
    take precedence over ``app.conf``. Raises :exc:`~celery_daemons.ConfigurationError` for an unknown setting and for a
    second instance on the same app.

    Times are in seconds. Calls that reach Redis may raise :exc:`~celery_daemons.StoreUnavailable`; calls that take a
    daemon's name may raise :exc:`~celery_daemons.InvalidName`.
    """

    def __init__(self, app: "Celery", **overrides: Unpack[GivenSettings]) -> None:
        check_overrides(overrides)
        self.app = app
        self.launchers = Registry()
        self._overrides: Mapping[str, Any] = overrides
        self.participation = Participation(app, overrides=overrides, settings=lambda: self.settings)
        attach_daemons(app, self)
        # Not app.add_defaults: values added there take precedence over the user's own configuration module.
        app.steps["worker"].add("celery_daemons.worker.steps:AgentStep")
        app.steps["consumer"].add("celery_daemons.worker.steps:SpawnStep")
        app.user_options["worker"].update(worker_options())
        allow_task_queues(app, lambda: self.settings.namespace)

    @staticmethod
    def of(app: "Celery") -> "Daemons":
        """Return the ``Daemons`` of a Celery app.

        Raises :exc:`~celery_daemons.ConfigurationError` if the app has none.
        """
        return cast(Daemons, daemons_of_app(app))

    @cached_property
    def settings(self) -> Settings:
        """The complete, checked settings, read from ``app.conf`` at first use.

        Raises :exc:`~celery_daemons.ConfigurationError`.
        """
        return self.settings_with()

    def settings_with(self, **options: Any) -> Settings:
        """Return the settings with those options replaced that are not ``None``, for example a worker's.

        Raises :exc:`~celery_daemons.ConfigurationError`.
        """
        given = {name: value for name, value in options.items() if value is not None}
        return read_settings(self.app, environment=os.environ, overrides=self._overrides, options=given)

    @property
    def recorded(self) -> RecordedCluster | None:
        """What calls have recorded in memory, if the app has ``task_always_eager`` or no cluster; else ``None``."""
        return self.participation.recorded()

    @cached_property
    def cluster(self) -> ClusterClient:
        """The blocking client of the cluster."""
        return ClusterClient.connect(self.settings.redis_url, self.settings.namespace, vnodes=self.settings.vnodes)

    @property
    def lookups(self) -> Lookups:
        """The queries of the same client."""
        return self.cluster.lookups

    @cached_property
    def calls(self) -> Aio:
        """The coroutines that the methods of this class run, over blocking I/O."""
        return self._aio_over(lambda: self.cluster.calls)

    @cached_property
    def aio(self) -> Aio:
        """The methods of this class as coroutines, for the event loop that runs."""
        return self._aio_over(lambda: self._loop_client)

    def _aio_over(self, client: Callable[[], AsyncClusterClient]) -> Aio:
        def cluster() -> AnyCluster:
            return self.recorded or client()

        return Aio(self.launchers, lambda: self.settings, cluster)

    @cached_property
    def _loop_client(self) -> AsyncClusterClient:
        io = LoopIO(self.settings.redis_url, Keys(self.settings.namespace))
        return AsyncClusterClient(io, vnodes=self.settings.vnodes)

    # Launchers

    @overload
    def launcher(self, name: AsyncClass[P], /) -> Launcher[P]: ...
    @overload
    def launcher(self, name: BlockingClass[P], /) -> Launcher[P]: ...
    @overload
    def launcher(self, name: AsyncFunction[P], /) -> Launcher[P]: ...
    @overload
    def launcher(self, name: BlockingFunction[P], /) -> Launcher[P]: ...
    @overload
    def launcher(self, name: str | None = None, **options: Unpack[GivenOptions]) -> LauncherDecorator: ...
    def launcher(self, name: Any = None, **options: Any) -> Any:
        """Register the decorated ``async def``, ``def`` or class with ``run(ctx, …)`` as a launcher.

        The default name is that of the function or class. The options are those of :class:`~celery_daemons.Launcher`.
        Works with and without parentheses. Raises :exc:`~celery_daemons.InvalidName` and
        :exc:`~celery_daemons.ConfigurationError`.
        """

        def register(factory: Callable[..., Any]) -> Launcher[...]:
            chosen = name if isinstance(name, str) else getattr(factory, "__name__", "")
            return self.register_launcher(chosen, Launcher(factory, **options))

        return register(name) if callable(name) else register

    def register_launcher(self, name: str, launcher: Launcher[P]) -> Launcher[P]:
        """Register a launcher under a name and return the launcher.

        Raises :exc:`~celery_daemons.InvalidName`, and :exc:`~celery_daemons.ConfigurationError` for a name that is
        registered already and for wrong options.
        """
        if name in self.launchers:
            raise ConfigurationError(f"launcher {name} is registered already; choose another name")
        if not isinstance(launcher, Launcher):
            raise ConfigurationError(f"launcher {name}: {launcher!r} is not a Launcher; write Launcher({launcher!r})")
        launcher.bind(name, self)
        launcher.task = self._task_of(launcher)
        self.launchers.add(launcher)
        return launcher

    def autodiscover(
        self, packages: Sequence[str] | Callable[[], Sequence[str]] | None = None, related_name: str = "daemons"
    ) -> None:
        """Import the module ``daemons`` of each package when the app imports task modules.

        Works like Celery's ``autodiscover_tasks``; ``related_name`` is the name of the module.
        """
        self.app.autodiscover_tasks(packages, related_name=related_name)

    def _task_of(self, launcher: Launcher[...]) -> Any:
        function = launch_task(self.spawn, launcher.name, runs=lambda: self.recorded is None)
        return self.app.task(function, name=f"celery_daemons.launch.{launcher.name}", shared=False)

    def address_book(self) -> AddressBook:
        """Return a live replica of the address book, for use with ``with`` or ``async with``."""
        return AddressBook.connect(self.settings.redis_url, self.settings.namespace, vnodes=self.settings.vnodes)

    # Blocking versions of the coroutines in aio.py: each call blocks until Redis has answered.

    locate = blocking(Aio.locate)
    locate_many = blocking(Aio.locate_many)
    nodes = blocking(Aio.nodes)
    list = blocking_iterator(Aio.list)
    pick_node = blocking(Aio.pick_node)
    status = blocking(Aio.status)
    events = blocking(Aio.events)
    follow_events = blocking_iterator(Aio.follow_events)
    spawn = blocking(Aio.spawn)
    stop = blocking(Aio.stop)
    start = blocking(Aio.start)
    restart = blocking(Aio.restart)
    forget = blocking(Aio.forget)
    move = blocking(Aio.move)
    rebalance = blocking(Aio.rebalance)
    pause_rebalance = blocking(Aio.pause_rebalance)
    resume_rebalance = blocking(Aio.resume_rebalance)
    drain = blocking(Aio.drain)
    stranded = blocking(Aio.stranded)
    uncordon = blocking(Aio.uncordon)
    rescan = blocking(Aio.rescan)
