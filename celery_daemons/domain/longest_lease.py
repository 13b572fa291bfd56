"""Remember the longest lease that may still run, also one that Redis no longer knows of."""


class LongestLease:
    """The longest lease in a cluster, in seconds; never less than ``least``, the length that is known without Redis.

    A lease that was seen registered may run for its own length after that, whatever happens to Redis's data.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._seen = 0.0
        self._seen_at = 0.0

    def note(self, length: float, *, now: float) -> None:
        """Note the longest lease that is registered now."""
        if length >= self._seen or now - self._seen_at > self._seen:
            self._seen, self._seen_at = length, now

    @property
    def seconds(self) -> float:
        """Return the longest lease that may run."""
        return max(self._least, self._seen)
