"""``Daemons(app)``: the public entry point that turns the workers of a Celery app into a cluster."""

import builtins
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from celery_daemons.client.address_book import AddressBook
from celery_daemons.client.aio import Aio
from celery_daemons.client.app_settings import check_overrides, read_settings
from celery_daemons.client.cluster_client import ClusterClient
from celery_daemons.client.launch_task import launch_task
from celery_daemons.client.lookups import ClusterStatus, Lookups
from celery_daemons.client.participation import Participation
from celery_daemons.client.recorded import RecordedCluster
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import Address, DaemonRecord, JournalEntry, Node
from celery_daemons.errors import ConfigurationError
from celery_daemons.launcher import Launcher, Registry, attach_daemons, daemons_of_app
from celery_daemons.settings import Settings
from celery_daemons.wire.spawn_task import allow_task_queues
from celery_daemons.worker.command_line import worker_options


class Daemons:
    """The daemons of a Celery app: the launchers, and calls to find and manage daemons.

    The constructor does no I/O. ``overrides`` are settings without their prefix, for example ``namespace="blue"``; they
    take precedence over ``app.conf``. Raises :exc:`~celery_daemons.ConfigurationError` for an unknown setting and for a
    second instance on the same app.

    Times are in seconds. Calls that reach Redis may raise :exc:`~celery_daemons.StoreUnavailable`; calls that take a
    daemon's name may raise :exc:`~celery_daemons.InvalidName`.
    """

    def __init__(self, app: Any, **overrides: Any) -> None:
        check_overrides(overrides)
        self.app = app
        self.launchers = Registry()
        self._overrides = overrides
        self.participation = Participation(app, overrides=overrides, settings=lambda: self.settings)
        attach_daemons(app, self)
        # Not app.add_defaults: values added there take precedence over the user's own configuration module.
        app.steps["worker"].add("celery_daemons.worker.steps:AgentStep")
        app.steps["consumer"].add("celery_daemons.worker.steps:SpawnStep")
        app.user_options["worker"].update(worker_options())
        allow_task_queues(app, lambda: self.settings.namespace)

    @staticmethod
    def of(app: Any) -> "Daemons":
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

    @property
    def cluster(self) -> ClusterClient:
        """The client that changes what should run, or a substitute that only records the calls."""
        return cast(ClusterClient, self.recorded or self._client)

    @property
    def lookups(self) -> Lookups:
        """The queries of the same client."""
        return self.cluster.lookups

    @cached_property
    def _client(self) -> ClusterClient:
        return ClusterClient.connect(self.settings.redis_url, self.settings.namespace, vnodes=self.settings.vnodes)

    @cached_property
    def aio(self) -> Aio:
        """The methods of this class as coroutines."""
        return Aio(self)

    # Launchers

    def launcher(
        self, name: str | Callable[..., Any] | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Launcher]:
        """Register the decorated ``async def``, ``def`` or class with ``run(ctx, …)`` as a launcher.

        The default name is that of the function or class. The options are those of :class:`~celery_daemons.Launcher`.
        Works with and without parentheses. Raises :exc:`~celery_daemons.InvalidName` and
        :exc:`~celery_daemons.ConfigurationError`.
        """

        def register(factory: Callable[..., Any]) -> Launcher:
            chosen = name if isinstance(name, str) else getattr(factory, "__name__", "")
            return self.register_launcher(chosen, Launcher(factory, **options))

        return register(name) if callable(name) else register

    def register_launcher(self, name: str, launcher: Launcher) -> Launcher:
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

    def _task_of(self, launcher: Launcher) -> Any:
        function = launch_task(self.spawn, launcher.name, runs=lambda: self.recorded is None)
        return self.app.task(function, name=f"celery_daemons.launch.{launcher.name}", shared=False)

    # Finding

    def locate(self, name: str) -> Address | None:
        """Return the address of a daemon, or ``None`` if no node with a valid lease holds the daemon.

        One round trip to Redis.
        """
        return self.lookups.locate(name)

    def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Return addresses by daemon name, without daemons that have no address. A round trip per 1,000 names."""
        return self.lookups.locate_many(names)

    def nodes(self) -> list[Node]:
        """Return every registered node, sorted by name."""
        return self.lookups.nodes()

    def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> Iterator[DaemonRecord]:
        """Yield the record of every known daemon that matches all given values, unsorted.

        Raises :exc:`~celery_daemons.ConfigurationError` for an unknown status.
        """
        return self.lookups.list(node, launcher, status)

    def pick_node(self, name: str) -> str | None:
        """Return the node that the hash ring prefers for a name, whether or not such a daemon runs.

        Returns ``None`` while no node takes daemons.
        """
        return self.lookups.pick_node(name)

    def status(self) -> ClusterStatus:
        """Return a summary of the cluster: leader, nodes and daemons by status, and scanners."""
        return self.lookups.status()

    def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """Return the last entries of the journal, oldest first."""
        return self.lookups.events(last=last)

    def address_book(self) -> AddressBook:
        """Return a live replica of the address book, to be used as a context manager."""
        return AddressBook.connect(self.settings.redis_url, self.settings.namespace, vnodes=self.settings.vnodes)

    # Managing

    def spawn(
        self,
        name: str,
        launcher: str | Launcher,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        wait: float | None = None,
        replace: bool = False,
    ) -> Address | None:
        """Record that daemon ``name`` should run; with ``wait`` seconds, return once the daemon runs.

        Without ``wait``, returns the current address, or ``None`` if there is none yet. Recording the same spec again
        changes nothing. A different spec under the same name raises :exc:`~celery_daemons.SpecConflict` unless
        ``replace`` is true.

        Raises :exc:`~celery_daemons.UnknownLauncher`, :exc:`~celery_daemons.ConfigurationError` for arguments that the
        launcher does not take or that have no JSON form of up to 1 MiB, and :exc:`~celery_daemons.SpawnTimeout`.
        """
        known = self._known(launcher)
        given, named = known.bound(name, args, kwargs or {})
        return self.cluster.spawn(name, known.name, given, named, wait=wait, replace=replace)

    def stop(self, name: str, wait: float | None = None) -> None:
        """Stop a daemon until :meth:`start`; with ``wait`` seconds, return once the daemon has stopped.

        A stopped daemon stays stopped even if a scanner lists it. Raises :exc:`~celery_daemons.DaemonsError` if the
        daemon is not known or has not stopped within ``wait``.
        """
        self.cluster.stop(name, wait)

    def start(self, name: str) -> None:
        """Let a stopped daemon run again.

        Raises :exc:`~celery_daemons.DaemonsError` if the daemon is not known.
        """
        self.cluster.start(name)

    def restart(self, name: str, wait: float | None = None) -> Address | None:
        """Restart a daemon under a new token; with ``wait`` seconds, return once the daemon runs again.

        Raises :exc:`~celery_daemons.DaemonsError` if the daemon is not known, and :exc:`~celery_daemons.SpawnTimeout`.
        """
        return self.cluster.restart(name, wait)

    def forget(self, name: str) -> bool:
        """Stop a daemon and delete the record. Returns whether the daemon was known."""
        return self.cluster.forget(name)

    def move(self, name: str, to: str | None = None, wait: float | None = None) -> Address | None:
        """Move a daemon to node ``to`` or, without ``to``, to any other suitable node: a stop, then a start.

        With ``wait`` seconds, returns once the daemon runs there. Raises :exc:`~celery_daemons.DaemonsError` if the
        daemon is not known or is stopped, or if no suitable node is up, and :exc:`~celery_daemons.SpawnTimeout`.
        """
        return self.cluster.move(name, to, wait)

    def rebalance(self, dry_run: bool = False) -> builtins.list[Move]:
        """Even out the load of the nodes to within a tenth of the fair shares, and return the moves this takes.

        The monitor makes the moves, at most the share ``daemons_rebalance_limit`` of all daemons at a time. A dry run
        only returns the moves. Raises :exc:`~celery_daemons.ConfigurationError` while ``daemons_rebalance`` is
        ``"off"`` and :exc:`~celery_daemons.DaemonsError` while rebalancing is paused.
        """
        return self.cluster.rebalance(self.settings, self.launchers.options_of, dry_run=dry_run)

    def pause_rebalance(self) -> None:
        """Pause rebalancing until :meth:`resume_rebalance`: the monitor moves only daemons that cannot stay."""
        self.cluster.pause_rebalance()

    def resume_rebalance(self) -> None:
        """Resume rebalancing after :meth:`pause_rebalance`."""
        self.cluster.pause_rebalance(paused=False)

    def drain(self, node: str, wait: float | None = None) -> None:
        """Move all daemons off a node and assign no others; with ``wait`` seconds, return once the node is empty.

        Raises :exc:`~celery_daemons.DaemonsError` for a node that is not registered and, with ``wait``, with the names
        of the daemons that are left. Daemons that no other node can take stay; once only these are left, the wait ends.
        """
        self.cluster.drain(node, wait, stranded=lambda: self.stranded(node))

    def stranded(self, node: str) -> set[str]:
        """Return the daemons on a node that no other node can take: no other has the launcher and the labels."""
        return self.cluster.stranded(self.settings, self.launchers.options_of, node)

    def uncordon(self, node: str) -> None:
        """Let a drained node take daemons again.

        Raises :exc:`~celery_daemons.DaemonsError` for a node that is not registered.
        """
        self.cluster.uncordon(node)

    def rescan(self, launcher: str | Launcher | None = None) -> None:
        """Ask the monitor to run the recovery scanner of a launcher, or all scanners, now.

        Raises :exc:`~celery_daemons.UnknownLauncher`, and :exc:`~celery_daemons.ConfigurationError` for a launcher
        without a scanner.
        """
        known = None if launcher is None else self._known(launcher)
        if known is not None and known.scanner is None:
            raise ConfigurationError(
                f"launcher {known.name} has no recovery scanner: add one with its decorator recovery_scanner"
            )
        self.cluster.rescan(None if known is None else known.name)

    def _known(self, launcher: str | Launcher) -> Launcher:
        return self.launchers[launcher.name if isinstance(launcher, Launcher) else launcher]
