"""A client of the HTTP server of an agent."""

import urllib.error
import urllib.request
from dataclasses import dataclass

#: Seconds that a kubelet waits by default is 1; a loaded build machine takes longer.
PROBE_LIMIT = 3.0


@dataclass(frozen=True, slots=True)
class Probe:
    """What a probe has answered; status 0 stands for no answer."""

    status: int
    text: str


def probe(port: int, path: str, *, host: str = "127.0.0.1", within: float = PROBE_LIMIT) -> Probe:
    """Ask once."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=within) as response:
            return Probe(response.status, response.read().decode())
    except urllib.error.HTTPError as error:
        return Probe(error.code, error.read().decode())
    except OSError as error:
        return Probe(0, str(error))
