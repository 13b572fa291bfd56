"""The arguments of a spec as text: JSON with the additional types of Celery's own JSON, such as dates and UUIDs."""

from collections.abc import Mapping, Sequence
from json import JSONDecoder
from typing import Any

from kombu.utils import json

from celery_daemons.errors import ConfigurationError

#: One encoder for all calls. Kombu looks types up when it encodes, so types that are registered later work too.
_encoder = json.JSONEncoder(sort_keys=True)
_plain_decoder = JSONDecoder()


def encode_arguments(name: str, args: Any, kwargs: Any) -> str:
    """Return the arguments of daemon ``name`` as text, the same text for equal arguments.

    Raises ConfigurationError if ``args`` is not a list or tuple, ``kwargs`` is not a mapping, or a value has no JSON
    form.
    """
    # A string is a sequence too; a daemon would receive its letters as arguments.
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes)):
        raise ConfigurationError(
            f"daemon {name}: args is of type {type(args).__name__}; give a list or a tuple, as in ['x']"
        )
    if not isinstance(kwargs, Mapping):
        raise ConfigurationError(f"daemon {name}: kwargs is of type {type(kwargs).__name__}; give a dictionary")
    try:
        return str(_encoder.encode([list(args), dict(kwargs)]))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(
            f"daemon {name}: its arguments do not serialise to JSON ({error}); pass numbers, strings, dates, UUIDs, "
            "and lists and dictionaries of these, and open anything else inside the daemon"
        ) from error


def decode_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the ``args`` and ``kwargs`` that :func:`encode_arguments` wrote. Raises ValueError."""
    # Kombu's decoder calls a function for every object; only text with additional types needs that.
    args, kwargs = json.loads(text) if '"__type__"' in text else _plain_decoder.decode(text)
    return tuple(args), kwargs
