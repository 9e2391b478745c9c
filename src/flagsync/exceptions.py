"""What flagsync reports and raises.

    Exception
     ├─ DeliveryError           passed to ``on_error``, never raised into the application
     └─ StoreUnavailableError   raised by a store of cohorts

A wrong option is a ``ValueError`` of the constructor; the errors of an evaluation are Flagsmith's own.
"""

from dataclasses import KW_ONLY, dataclass


@dataclass(eq=False, repr=False)
class DeliveryError(Exception):
    """Updates that did not arrive, or have not yet: profiles in Mixpanel, traits in Flagsmith.

    ``str()`` of it is safe to log.

    Attributes:
        reason: What happened.
        count: How many updates are concerned.
        will_retry: True if they are kept and sent again, False if they are lost.
        misconfigured: True if none gets through until a person acts.
        identifiers: Whom they concern, where that is known; never in ``str()``.
        answer: The first 500 characters of the server's answer; never in ``str()``, it may quote what was sent.
    """

    reason: str
    count: int
    _: KW_ONLY
    will_retry: bool = False
    misconfigured: bool = False
    identifiers: tuple[str, ...] = ()
    answer: str = ""

    def __post_init__(self) -> None:
        """Have ``args``, by which an exception is copied."""
        super().__init__(self.reason, self.count)

    def __str__(self) -> str:
        fate = "kept and sent again later" if self.will_retry else "lost"
        kind = "Configuration error: " if self.misconfigured else ""
        return f"{kind}{self.reason}: {self.count} update{'s' * (self.count != 1)} {fate}"


class StoreUnavailableError(Exception):
    """A store of cohorts cannot do now what it may do later."""
