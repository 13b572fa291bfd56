"""The types of what a program gives a launcher: a class with ``run``, and a recovery scanner. Pure."""

from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable
from typing import ParamSpec, Protocol, TypeVar

from celery_daemons.domain.records import DaemonSpec

P = ParamSpec("P")
C_contra = TypeVar("C_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class HasRun(Protocol[C_contra, P, R_co]):
    """A class whose instances are daemons: ``run`` takes a context, and the arguments of the spec."""

    def run(self, ctx: C_contra, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Run until the daemon ends."""


_Specs = Iterable[DaemonSpec | Collection[DaemonSpec]]
#: A function without arguments that lists the daemons that should run, one by one or in pages.
Scanner = Callable[[], _Specs | Awaitable[_Specs] | AsyncIterable[DaemonSpec | Collection[DaemonSpec]]]
