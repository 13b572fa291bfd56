"""The types of the decorator ``daemons.launcher``: a type checker infers from them what a launcher's specs take."""

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, overload

from celery_daemons.domain.factories import HasRun
from celery_daemons.host.context import BlockingDaemonContext, DaemonContext
from celery_daemons.launcher import Launcher

P = ParamSpec("P")

AsyncFunction = Callable[Concatenate[DaemonContext, P], Coroutine[Any, Any, object]]
BlockingFunction = Callable[Concatenate[BlockingDaemonContext, P], object]
AsyncClass = type[HasRun[DaemonContext, P, Coroutine[Any, Any, object]]]
BlockingClass = type[HasRun[BlockingDaemonContext, P, object]]


class LauncherDecorator(Protocol):
    """What ``daemons.launcher(…)`` returns: it makes a launcher of an ``async def``, a ``def`` or a class."""

    @overload
    def __call__(self, factory: AsyncClass[P], /) -> Launcher[P]: ...
    @overload
    def __call__(self, factory: BlockingClass[P], /) -> Launcher[P]: ...
    @overload
    def __call__(self, factory: AsyncFunction[P], /) -> Launcher[P]: ...
    @overload
    def __call__(self, factory: BlockingFunction[P], /) -> Launcher[P]: ...
