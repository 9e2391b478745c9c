"""What flagsync reports and raises.

    Exception
     ├─ DeliveryError           passed to ``on_error``; raised by ``flagsync.bulk`` only
     ├─ StoreUnavailableError   raised by a store of cohorts
     └─ MissingPackageError     raised where an option or an import needs a package that is not installed

An invalid option raises ``ValueError`` in the constructor. The errors of an evaluation are Flagsmith's own.
"""

from dataclasses import KW_ONLY, dataclass


@dataclass(eq=False, repr=False)
class DeliveryError(Exception):
    """Updates that were lost, or have not arrived yet: of profiles in Mixpanel, or of traits in Flagsmith.

    Its ``str()`` is safe to log.

    Attributes:
        reason: What happened.
        count: How many updates are affected.
        will_retry: True if they are kept and sent again, False if they are lost.
        misconfigured: True if none is accepted until someone corrects the configuration.
        identifiers: Whose updates they are, where that is known; never in ``str()``.
        answer: The first 500 characters of the server's answer; never in ``str()``, since it may quote what was sent.
    """

    reason: str
    count: int
    _: KW_ONLY
    will_retry: bool = False
    misconfigured: bool = False
    identifiers: tuple[str, ...] = ()
    answer: str = ""

    def __post_init__(self) -> None:
        """Set ``args``, which are needed to copy or pickle an exception."""
        super().__init__(self.reason, self.count)

    def __str__(self) -> str:
        fate = "kept and sent again later" if self.will_retry else "lost"
        kind = "Configuration error: " if self.misconfigured else ""
        updates = f": {self.count} update{'s' * (self.count != 1)} {fate}" if self.count else ""
        return f"{kind}{self.reason}{updates}"


class StoreUnavailableError(Exception):
    """A store of cohorts cannot do something now, but the same call may succeed later."""


class MissingPackageError(ImportError, ValueError):
    """A package is missing. An option that needs it is then invalid, and what needs it cannot be imported."""
