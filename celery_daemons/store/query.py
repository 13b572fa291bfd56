"""A query: the commands of one round trip to Redis, and how to decode the reply."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import update_wrapper
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, overload

from celery_daemons.store.keys import Keys

if TYPE_CHECKING:
    from celery_daemons.store.connection import Store

P = ParamSpec("P")
T = TypeVar("T")


class AsyncReader(Protocol):
    """What a coroutine asks: an :class:`~celery_daemons.store.connection.AsyncStore`, or anything that reads as one."""

    @property
    def keys(self) -> Keys:
        """The keys of the namespace."""

    async def read(self, query: Callable[[Any], Any]) -> Any:
        """Call ``query`` with the client and return the reply. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Query(Generic[T]):
    """The commands that ``ask`` sends with a Redis client, blocking or async, and the decoder of their reply."""

    ask: Callable[[Any], Any]
    decode: Callable[[Any], T]


class AnyStoreQuery(Generic[P, T]):
    """A query that is called with a blocking store for the result, or with an async one for a coroutine."""

    def __init__(self, make: Callable[Concatenate[Keys, P], Query[T]]) -> None:
        self._make = make
        update_wrapper(self, make)

    @overload
    def __call__(self, store: "Store", *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def __call__(self, store: AsyncReader, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]: ...
    def __call__(self, store: "Store | AsyncReader", *args: P.args, **kwargs: P.kwargs) -> T | Coroutine[Any, Any, T]:
        """Ask one store. Raises StoreUnavailable."""
        query = self._make(store.keys, *args, **kwargs)
        reply = store.read(query.ask)
        return _decoded(reply, query.decode) if isawaitable(reply) else query.decode(reply)


async def _decoded(reply: Any, decode: Callable[[Any], T]) -> T:
    return decode(await reply)


def query(make: Callable[Concatenate[Keys, P], Query[T]]) -> AnyStoreQuery[P, T]:
    """Decorate a function of the keys that returns a query, so that blocking and async stores can be asked."""
    return AnyStoreQuery(make)
