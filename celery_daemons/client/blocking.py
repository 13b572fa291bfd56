"""Run the coroutines of the client without an event loop: with blocking I/O none of them is ever suspended."""

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class OverCoroutines(Protocol):
    """An object whose blocking methods run the coroutines of :attr:`calls`, which must have blocking I/O."""

    @property
    def calls(self) -> Any:
        """The object with the coroutines."""


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that does not wait for an event loop, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} waits for an event loop, and none runs it")


def blocking(
    call: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[OverCoroutines, P], T]:
    """Return the blocking method for a coroutine method of the same name, with its signature and docstring."""
    name = call.__name__

    def method(self: OverCoroutines, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = finish(getattr(self.calls, name)(*args, **kwargs))
        return result

    return _described(method, call)


def blocking_iterator(
    call: Callable[Concatenate[Any, P], AsyncIterator[T]],
) -> Callable[Concatenate[OverCoroutines, P], Iterator[T]]:
    """Return the method that iterates over an asynchronous generator of the same name without an event loop."""
    name = call.__name__

    def method(self: OverCoroutines, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = getattr(self.calls, name)(*args, **kwargs)
        try:
            while True:
                try:
                    yield finish(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            finish(items.aclose())

    return _described(method, call)


def _described(method: F, call: Any) -> F:
    """Give a method the name, docstring and signature of a coroutine method, without the mark of a coroutine."""
    signature = inspect.signature(call)
    kind = str(signature.return_annotation).removeprefix("Async")
    method.__name__ = method.__qualname__ = call.__name__
    method.__doc__ = call.__doc__
    method.__signature__ = signature.replace(return_annotation=kind)  # type: ignore[attr-defined]
    return method


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)
