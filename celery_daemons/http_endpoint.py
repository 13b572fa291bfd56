"""The form of the setting ``daemons_http``: host and port."""

from typing import Final

_LARGEST_PORT: Final = 65535


def http_endpoint(text: str) -> tuple[str, int]:
    """Return host and port of a value of ``daemons_http``. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) != bracketed or not port.isascii() or not port.isdigit():
        raise ValueError(text)
    if int(port) > _LARGEST_PORT:
        raise ValueError(text)
    return host, int(port)


def is_endpoint(text: str) -> bool:
    """Return whether ``text`` is a valid value of ``daemons_http``."""
    try:
        http_endpoint(text)
    except ValueError:
        return False
    return True
