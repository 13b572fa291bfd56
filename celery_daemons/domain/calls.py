"""How the function of a launcher is called: its signature, its arguments, and whether a call runs it. Pure."""

import inspect
from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from celery_daemons.errors import ConfigurationError, NotADaemon


def signature_of(factory: Any) -> Signature | None:
    """Return the signature of a daemon's call, from the context on; ``None`` if Python knows no signature."""
    code: Any = getattr(factory, "run", None) if inspect.isclass(factory) else factory
    try:
        # Not that of a function under a decorator: the decorator may add or take arguments.
        whole = inspect.signature(code, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
    if inspect.isclass(factory) and inspect.isfunction(inspect.getattr_static(factory, "run")):
        return whole.replace(parameters=list(whole.parameters.values())[1:])
    return whole


def bind_arguments(
    signature: Signature, args: Any, kwargs: Any, *, name: str, launcher: str
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments bound to a launcher's signature, the same for each way to write a call.

    The first parameter is the context. Arguments that may be passed by name are. Raises ConfigurationError with the
    parameter for arguments that the launcher does not take.
    """
    check_types(name, args, kwargs)
    try:
        bound = signature.bind(None, *args, **kwargs).arguments
    except TypeError as error:
        rest = list(signature.parameters.values())[1:]
        shown = signature.replace(parameters=rest, return_annotation=Signature.empty)
        raise ConfigurationError(
            f"daemon {name}: launcher {launcher} does not take these arguments: {error}; its parameters after ctx are "
            f"{shown}"
        ) from error
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name in bound]
    # Behind further positional arguments, none can be passed by name.
    spread = any(one.kind is Parameter.VAR_POSITIONAL and bound[one.name] for one in parameters)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for number, one in enumerate(parameters):
        value = bound[one.name]
        if one.kind is Parameter.VAR_POSITIONAL:
            positional += value
        elif one.kind is Parameter.VAR_KEYWORD:
            named |= value
        elif (
            number == 0 or one.kind is Parameter.POSITIONAL_ONLY or (spread and one.kind is not Parameter.KEYWORD_ONLY)
        ):
            positional.append(value)
        else:
            named[one.name] = value
    return positional[1:], named


def check_types(name: str, args: Any, kwargs: Any) -> None:
    """Raise ConfigurationError unless ``args`` is a list or tuple, and ``kwargs`` a mapping with strings for keys."""
    # A string is a sequence too; a daemon would receive its letters as arguments.
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes)):
        raise ConfigurationError(
            f"daemon {name}: args is of type {type(args).__name__}; give a list or a tuple, as in ['x']"
        )
    if not isinstance(kwargs, Mapping):
        raise ConfigurationError(f"daemon {name}: kwargs is of type {type(kwargs).__name__}; give a dictionary")
    for key in kwargs:
        if not isinstance(key, str):
            raise ConfigurationError(f"daemon {name}: the key {key!r:.80} of kwargs is not a string")


def check_is_no_generator(code: object, launcher: str) -> None:
    """Raise ConfigurationError for a function that yields."""
    if inspect.isgeneratorfunction(code) or inspect.isasyncgenfunction(code):
        raise ConfigurationError(
            f"launcher {launcher}: its function yields, so a call would only make a generator; a daemon's function "
            "runs until the daemon ends"
        )


def check_has_run(result: object, launcher: str) -> None:
    """Raise NotADaemon if the call of a ``def`` returned something that has yet to run."""
    if not (inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result)):
        return
    if inspect.iscoroutine(result):
        result.close()
    raise NotADaemon(
        f"launcher {launcher}: its function returned a {type(result).__name__} instead of running, so no code of the "
        "daemon has run; a decorator of an async def has to be an async def too, and a daemon must not yield"
    )
