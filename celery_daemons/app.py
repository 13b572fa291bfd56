"""``Daemons(app)``: what turns a Celery app into a cluster."""

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Final

import click

from celery_daemons import settings as settings_module
from celery_daemons.client.address_book import AddressBook
from celery_daemons.client.aio import Aio
from celery_daemons.client.cluster_client import ClusterClient
from celery_daemons.client.dry_run import even_moves, stranded_daemons
from celery_daemons.client.lookups import ClusterStatus
from celery_daemons.domain.names import check_name
from celery_daemons.domain.rebalance import Move
from celery_daemons.domain.records import Address, DaemonRecord, JournalEntry, Node
from celery_daemons.errors import ConfigurationError, DaemonsError, SpawnTimeout
from celery_daemons.launcher import Launcher, Registry, encode_arguments
from celery_daemons.settings import PREFIX, Settings

#: Seconds that a launcher's task waits for the daemon to run, so as to return its address.
_TASK_WAIT: Final = 10.0


class Daemons:
    """The daemons of one Celery app: its launchers, and calls to look up and steer what runs.

    Does no I/O when it is made. ``overrides`` are settings without their prefix, for example ``namespace="blue"``; they
    win over ``app.conf``. Raises :exc:`ConfigurationError` for a second one on the same app.
    """

    def __init__(self, app: Any, **overrides: Any) -> None:
        if getattr(app, "_celery_daemons", None) is not None:
            raise ConfigurationError(
                f"the Celery app {app.main or app!r} has a Daemons already; Daemons.of(app) returns it"
            )
        unknown = sorted(set(overrides) - settings_module.NAMES)
        if unknown:
            known = ", ".join(sorted(settings_module.NAMES))
            raise ConfigurationError(f"Daemons: there is no setting {unknown[0]!r}; the settings are {known}")
        self.app = app
        self.launchers = Registry()
        self._overrides = overrides
        app._celery_daemons = self
        # Not app.add_defaults: what that adds outranks the user's own configuration module.
        app.steps["worker"].add("celery_daemons.worker.steps:AgentStep")
        app.steps["consumer"].add("celery_daemons.worker.steps:SpawnStep")
        app.user_options["worker"].update(_worker_options())

    @staticmethod
    def of(app: Any) -> "Daemons":
        """The Daemons that an app carries; raises ConfigurationError if it has none."""
        daemons = getattr(app, "_celery_daemons", None)
        if not isinstance(daemons, Daemons):
            raise ConfigurationError(
                f"the Celery app {app.main or app!r} has no Daemons: write `daemons = Daemons(app)` beside it"
            )
        return daemons

    @cached_property
    def settings(self) -> Settings:
        """The settings, complete and checked; read from ``app.conf`` at first use. Raises ConfigurationError."""
        return self.settings_with()

    def settings_with(self, **options: Any) -> Settings:
        """The settings with some replaced, as by a worker's options; ``None`` replaces nothing."""
        conf = self.app.conf
        settings_module.refuse_unread(conf, conf.prefix or "")
        values = {name: conf.get(PREFIX + name) for name in settings_module.NAMES}
        values.update(self._overrides)
        values.update({name: value for name, value in options.items() if value is not None})
        fallbacks = (
            _home(conf.broker_url, conf.broker_transport_options),
            _home(conf.result_backend, conf.result_backend_transport_options),
        )
        settings = settings_module.load(values, fallback_urls=fallbacks)
        check_name(settings.namespace, "daemons_namespace")
        for label in settings.node_labels:
            check_name(label, "node label")
        return settings

    @cached_property
    def cluster(self) -> ClusterClient:
        """The client behind the calls below."""
        settings = self.settings
        return ClusterClient(settings.redis_url, settings.namespace, vnodes=settings.vnodes)

    @cached_property
    def aio(self) -> Aio:
        """The same calls as coroutines."""
        return Aio(self)

    # Launchers

    def launcher(
        self, name: str | Callable[..., Any] | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Launcher]:
        """Decorate an ``async def``, a ``def`` or a class with ``run(ctx, …)``; without a name, its own counts."""

        def register(factory: Callable[..., Any]) -> Launcher:
            chosen = name if isinstance(name, str) else getattr(factory, "__name__", "")
            return self.register_launcher(chosen, Launcher(factory, **options))

        if callable(name):
            return register(name)  # used without parentheses
        return register

    def register_launcher(self, name: str, launcher: Launcher) -> Launcher:
        """Register a launcher under a name. Raises InvalidName, ConfigurationError."""
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
        """Import ``daemons.py`` of the packages with the app's modules, as ``autodiscover_tasks`` does for tasks."""
        self.app.autodiscover_tasks(packages, related_name=related_name)

    def _task_of(self, launcher: Launcher) -> Any:
        def spawn_daemon(name: str, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
            """Record that a daemon should run; returns its address once it does, else nothing."""
            try:
                address = self.spawn(name, launcher.name, args=args, kwargs=kwargs, wait=_TASK_WAIT)
            except SpawnTimeout:
                return None
            return asdict(address) if address else None

        return self.app.task(spawn_daemon, name=f"celery_daemons.launch.{launcher.name}", shared=False)

    # Looking up

    def locate(self, name: str) -> Address | None:
        """Where a daemon is; one round trip, and never an address whose node's lease has run out."""
        return self.cluster.locate(name)

    def locate_many(self, names: Iterable[str]) -> dict[str, Address]:
        """Where many are, those that are found; one round trip per 1,000."""
        return self.cluster.locate_many(names)

    def nodes(self) -> list[Node]:
        """Every registered node."""
        return self.cluster.nodes()

    def list(
        self, node: str | None = None, launcher: str | None = None, status: str | None = None
    ) -> Iterator[DaemonRecord]:
        """Every known daemon that matches."""
        return self.cluster.list(node, launcher, status)

    def pick_node(self, name: str) -> str | None:
        """The node the ring prefers for a name, running or not."""
        return self.cluster.pick_node(name)

    def status(self) -> ClusterStatus:
        """The cluster at a glance."""
        return self.cluster.status()

    def events(self, *, last: int = 100) -> Sequence[JournalEntry]:
        """The last entries of the journal, oldest first."""
        return self.cluster.events(last=last)

    def address_book(self) -> AddressBook:
        """A live replica in this process, as a context manager."""
        settings = self.settings
        return AddressBook.connect(settings.redis_url, settings.namespace, vnodes=settings.vnodes)

    # Steering

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
        """Record that ``name`` should run; with ``wait`` seconds, return once it runs or raise SpawnTimeout.

        The same spec again changes nothing; another one under a taken name raises SpecConflict unless ``replace``.
        Raises UnknownLauncher, InvalidName, ConfigurationError (arguments that do not serialise), StoreUnavailable.
        """
        known = self._known(launcher)
        arguments = encode_arguments(name, args, kwargs or {})
        before = self.cluster.locate(name) if replace else None
        outcome = self.cluster.want(name, known.name, arguments, replace=replace)
        if wait is not None:
            # What is being replaced may run for a while yet: it is not what is waited for.
            than = before.token if before is not None and outcome == "replaced" else None
            return self.cluster.wait_running(name, within=wait, than=than)
        return self.cluster.locate(name)

    def stop(self, name: str, wait: float | None = None) -> None:
        """Stop a daemon until :meth:`start`, whatever a scanner lists."""
        self.cluster.stop(name, wait)

    def start(self, name: str) -> None:
        """Let a stopped daemon run again."""
        self.cluster.start(name)

    def restart(self, name: str, wait: float | None = None) -> Address | None:
        """Start a daemon anew."""
        return self.cluster.restart(name, wait)

    def forget(self, name: str) -> bool:
        """Stop a daemon and know nothing of it any more."""
        return self.cluster.forget(name)

    def move(self, name: str, to: str | None = None, wait: float | None = None) -> Address | None:
        """Stop a daemon and start it on another node: on ``to``, or wherever it is placed other than here."""
        return self.cluster.move(name, to, wait)

    def rebalance(self, dry_run: bool = False) -> builtins.list[Move]:
        """Even the nodes out: to within a tenth of their fair shares, by as few moves as that takes; returns those.

        The monitor makes them, ``daemons_rebalance_limit`` at once. Raises DaemonsError while that is paused.
        """
        moves = even_moves(self.cluster.store, self.settings, self.launchers.options_of)
        if not dry_run and self.settings.rebalance == "off":
            raise ConfigurationError("daemons_rebalance is 'off': nothing is moved; set it to 'manual' or 'auto'")
        if not dry_run and self.cluster.rebalance_paused():
            raise DaemonsError("rebalancing is paused; `celery -A … daemons rebalance --resume` lets it go on")
        if moves and not dry_run:
            self.cluster.ask_rebalance()
        return moves

    def pause_rebalance(self) -> None:
        """Let the monitor move nothing that may stay where it is, until :meth:`resume_rebalance`; kept in Redis."""
        self.cluster.pause_rebalance()

    def resume_rebalance(self) -> None:
        """Let it do so again."""
        self.cluster.pause_rebalance(paused=False)

    def drain(self, node: str, wait: float | None = None) -> None:
        """Hand all daemons of a node over and give it none; with ``wait`` seconds, return once it holds none.

        Raises DaemonsError that names what is left: in time, what no other node can take stays.
        """
        self.cluster.drain(node, wait, stranded=lambda: self.stranded(node))

    def stranded(self, node: str) -> set[str]:
        """The daemons on a node that no other node can take: none has their launcher and labels."""
        return stranded_daemons(self.cluster.store, self.settings, self.launchers.options_of, node)

    def uncordon(self, node: str) -> None:
        """Let a drained node take daemons again."""
        self.cluster.uncordon(node)

    def rescan(self, launcher: str | Launcher | None = None) -> None:
        """Run one recovery scanner, or all, now. Raises UnknownLauncher, ConfigurationError if it has no scanner."""
        known = None if launcher is None else self._known(launcher)
        if known is not None and known.scanner is None:
            raise ConfigurationError(
                f"launcher {known.name} has no recovery scanner: add one with its decorator recovery_scanner"
            )
        self.cluster.rescan(None if known is None else known.name)

    def _known(self, launcher: str | Launcher) -> Launcher:
        return self.launchers[launcher.name if isinstance(launcher, Launcher) else launcher]


def _home(url: Any, transport_options: Any) -> str | None:
    """Where a broker or backend setting says that Redis is.

    It may be a list of URLs for fail-over, or joined by semicolons: of plain servers the first counts, as the address
    book has one home; of sentinels all do.
    """
    urls = [str(one) for one in url] if isinstance(url, (list, tuple)) else str(url or "").split(";")
    if not urls[0].startswith("sentinel://"):
        return urls[0] or None
    joined = ";".join(urls)
    name = (transport_options or {}).get("master_name")
    return f"{joined}?master_name={name}" if name and "master_name=" not in joined else joined


def _worker_options() -> list[click.Option]:
    return [
        click.Option(["--no-daemons"], is_flag=True, help="Take no part in the cluster of daemons."),
        click.Option(["--daemon-labels"], metavar="A,B", help="Labels of this node, for launchers that ask for them."),
        click.Option(["--daemon-weight"], type=float, help="How much this node takes, relative to the others."),
    ]
