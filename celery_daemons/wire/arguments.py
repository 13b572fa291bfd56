"""The arguments of a spec as text: JSON with the additional types of Celery's own JSON, such as dates and UUIDs."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, Signature
from json import JSONDecoder
from typing import Any, Final

from kombu.utils import json

from celery_daemons.errors import ConfigurationError

#: One encoder for all calls. Kombu looks types up when it encodes, so types that are registered later work too.
_encoder = json.JSONEncoder(sort_keys=True)
_plain_decoder = JSONDecoder()
#: The most bytes of the arguments of one daemon. They are kept in Redis, and travel with every start.
LONGEST: Final = 1024 * 1024


def encode_arguments(name: str, args: Any, kwargs: Any) -> str:
    """Return the arguments of daemon ``name`` as text, the same text for equal arguments.

    Raises ConfigurationError if ``args`` is not a list or tuple, ``kwargs`` is not a mapping, a value has no JSON form,
    or the text is longer than :data:`LONGEST`.
    """
    _check_types(name, args, kwargs)
    try:
        encoded = str(_encoder.encode([list(args), dict(kwargs)]))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"daemon {name}: its arguments do not serialise to JSON ({error}); pass numbers, strings, dates, UUIDs, "
            "and lists and dictionaries of these, and open anything else inside the daemon"
        ) from error
    # The encoder writes ASCII only: a character is a byte.
    if len(encoded) > LONGEST:
        raise ConfigurationError(
            f"daemon {name}: its arguments take {len(encoded)} bytes, and the limit is {LONGEST}; store large data "
            "elsewhere, and pass where it is"
        )
    return encoded


def bind_arguments(
    signature: Signature, args: Any, kwargs: Any, *, name: str, launcher: str
) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments as a launcher with this signature takes them, the same for each way to write one call.

    The first parameter is the context. Arguments that may be passed by name are. Raises ConfigurationError with the
    parameter for arguments that the launcher does not take.
    """
    _check_types(name, args, kwargs)
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


def _check_types(name: str, args: Any, kwargs: Any) -> None:
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


def decode_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the ``args`` and ``kwargs`` that :func:`encode_arguments` wrote. Raises ValueError."""
    # Kombu's decoder calls a function for every object; only text with additional types needs that.
    args, kwargs = json.loads(text) if '"__type__"' in text else _plain_decoder.decode(text)
    return tuple(args), kwargs
