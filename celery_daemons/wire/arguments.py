"""The arguments of a spec as text: JSON with the additional types of Celery's own JSON, such as dates and UUIDs."""

from json import JSONDecoder
from typing import Any, Final

from kombu.utils import json

from celery_daemons.domain.calls import check_types
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
    check_types(name, args, kwargs)
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


def decode_arguments(text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the ``args`` and ``kwargs`` that :func:`encode_arguments` wrote. Raises ValueError."""
    # Kombu's decoder calls a function for every object; only text with additional types needs that.
    args, kwargs = json.loads(text) if '"__type__"' in text else _plain_decoder.decode(text)
    return tuple(args), kwargs
