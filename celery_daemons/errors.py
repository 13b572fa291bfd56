"""Every error the package raises; the message names the thing and says what to do."""


class DaemonsError(Exception):
    """The root of all errors of this package."""


class ConfigurationError(DaemonsError):
    """A setting, launcher, server or registration is wrong; the message names it, its value and the rule."""


class InvalidName(DaemonsError, ValueError):
    """A daemon, launcher, node, label or namespace name breaks the rule for names."""


class UnknownLauncher(DaemonsError, LookupError):
    """No launcher of that name is registered on this app."""


class SpecConflict(DaemonsError):
    """Another spec already stands under the name; pass ``replace=True`` to replace it."""


class SpawnTimeout(DaemonsError, TimeoutError):
    """The daemon was recorded but did not run within the wait; the message says why not."""


class StoreUnavailable(DaemonsError):
    """Redis cannot be reached, refuses to answer, or is not the writable primary."""


class LayoutMismatch(DaemonsError):
    """The namespace holds a key layout that this version does not speak; nothing was touched."""


class Fenced(DaemonsError):
    """A newer holder exists: what this caller holds is void."""


class LeaseLost(Fenced):
    """The node's or the monitor's lease has ended or belongs to another incarnation."""


class ClaimLost(Fenced):
    """The daemon's token is no longer the one in the address book."""
