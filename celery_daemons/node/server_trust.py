"""Know whether the data of the Redis server that answers may lack the last writes, and what a node must do then."""


class ServerTrust:
    """Pure: what the node learns of the server comes in, with the time on the lease clock in seconds."""

    def __init__(self) -> None:
        #: The server does not have a record of every daemon that runs here yet.
        self.must_reassert = False
        self._no_claims_before = 0.0
        #: The history of the server as the last answer had it; ``None`` before the first one.
        self._history: str | None = None

    def may_claim(self, now: float) -> bool:
        """Return whether a claim may be sent: every node that holds daemons has had time to register them again."""
        return now >= self._no_claims_before

    def on_join(self, history: str) -> None:
        """Note the server that the node has joined: nothing runs here yet."""
        self.must_reassert = False
        self._history = history

    def on_data_lost(self) -> None:
        """Note that the server does not know this node."""
        # Kept until every daemon is registered: once Redis has a part of them, it no longer reports a loss.
        self.must_reassert = True

    def on_history(self, history: str, *, now: float, longest_lease: float) -> bool:
        """Note the history that a heartbeat has found; return whether the server has another one than before."""
        changed = self._history not in (None, history)
        self._history = history
        if changed:
            self._distrust(now, longest_lease)
        return changed

    def on_other_server(self, *, now: float, longest_lease: float) -> None:
        """Note that another server answers from now on."""
        self._history = None
        self._distrust(now, longest_lease)

    def _distrust(self, now: float, longest_lease: float) -> None:
        self.must_reassert = True
        # Another node with a longer lease may still hold daemons that this server's data assigns to this node.
        self._no_claims_before = now + longest_lease
