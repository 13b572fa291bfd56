"""The elected monitor: finds out what should run, plans where, and dispatches it to the nodes."""
