"""What the node concludes from the answer to a heartbeat."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease was renewed.

    ``generation`` counts the changes of this node's assignments; ``led`` is whether a monitor leads.
    """

    generation: int
    led: bool


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Redis may have lost this node's data: register again, with every daemon that runs here."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The lease has ended, or another incarnation has the node's name."""
