"""Every error that the package raises. A message names the thing, its value, the rule and the remedy."""


class DaemonsError(Exception):
    """The base class of all errors of this package."""


class ConfigurationError(DaemonsError):
    """A setting, launcher, server or registration is wrong; the message says which, the value and the rule."""


class InvalidName(DaemonsError, ValueError):
    """A daemon, launcher, node, label or namespace name breaks the rule for names."""


class UnknownLauncher(DaemonsError, LookupError):
    """No launcher of that name is registered on this app."""


class SpecConflict(DaemonsError):
    """The daemon already has a different spec; pass ``replace=True`` to replace that spec."""


class SpawnTimeout(DaemonsError, TimeoutError):
    """The daemon was recorded but did not start within the wait; the message says why."""


class StoreUnavailable(DaemonsError):
    """Redis cannot be reached, refuses to answer, or is not the writable primary."""


class LayoutMismatch(DaemonsError):
    """The namespace uses a key layout that this version does not support; nothing was changed."""


class Fenced(DaemonsError):
    """A newer holder exists: the lease, claim or token of the caller is no longer valid."""


class LeaseLost(Fenced):
    """The lease of the node or the monitor has ended, or another incarnation holds the lease."""


class ClaimLost(Fenced):
    """A newer token exists for the daemon: a later start of the daemon has replaced this run."""


class NotADaemon(ConfigurationError):
    """The call of a launcher's function returned something that has yet to run; no number of restarts will help."""
