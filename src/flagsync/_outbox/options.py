"""Settings of a durable outbox. Users choose only ``StoreBounds``, through a backend; tests choose both."""

from dataclasses import dataclass, fields

from flagsync._rules import is_number, require, shown

POSITIVE = ("max_pending", "prune_rows", "prune_tails", "call_seconds", "call_messages", "lease_seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """How messages get from memory into a backend, and what happens if they do not.

    Attributes:
        save_seconds: The longest time that messages wait in memory. They are saved together, since a transaction costs
            more than a row.
        save_messages: This many messages are saved without waiting longer.
        busy_seconds: How long one operation waits for another process.
        retry_seconds: The pause after the first failure of the backend. Each further failure doubles it.
        max_retry_seconds: The longest pause. After it, an idle process lets others send.
        grace_seconds: How long before the end of a lease the last request must have ended. Mixpanel may still be
            working on a request that its sender has given up.
    """

    save_seconds: float = 0.1
    save_messages: int = 500
    busy_seconds: float = 2.0
    retry_seconds: float = 1.0
    max_retry_seconds: float = 60.0
    grace_seconds: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreBounds:
    """How large a shared store gets, and how long its operations take.

    Attributes:
        max_pending: Messages that wait for one destination. Beyond it the oldest are dropped.
        max_remembered: Keys whose last message is remembered.
        remember_seconds: How long a message is remembered after it was accepted.
        prune_rows: How many rows one transaction looks at to forget old ones.
        prune_tails: How many unused tails it deletes; a tail may have many kilobytes.
        prune_seconds: How often a transaction prunes while ``max_remembered`` is not exceeded.
        account_seconds: How long an idle process keeps its account, before it is merged with those of former processes.
        call_seconds: How long one call to a server may take.
        call_messages: How many messages one call to a server stores or settles. Redis serves nobody else meanwhile.
        lease_seconds: How long a process may send after it acquired the lease of a server. A request to Mixpanel takes
            up to 30 seconds, and ends 5 seconds before the lease does.

    Raises:
        ValueError: A bound is no number, or too small.
    """

    max_pending: int = 1_000_000
    max_remembered: int = 1_000_000
    remember_seconds: float = 30 * 86400.0
    prune_rows: int = 1000
    prune_tails: int = 50
    prune_seconds: float = 60.0
    account_seconds: float = 30 * 86400.0
    call_seconds: float = 2.0
    call_messages: int = 500
    lease_seconds: float = 45.0

    def __post_init__(self) -> None:
        rules = dict[str, bool]()
        for name, value in ((one.name, getattr(self, one.name)) for one in fields(self)):
            is_time, is_positive = name.endswith("_seconds"), name in POSITIVE
            is_valid = (is_number(value) if is_time else type(value) is int) and (value > 0 or not is_positive)
            kind = ("number" if is_time else "whole number") + " above 0" * is_positive
            rules[f"{name} must be a {kind}, not {shown(value)}"] = is_valid
        require(rules)


def checked(bounds: object) -> StoreBounds:
    """Return the bounds of a backend.

    Raises:
        ValueError: They are something else.
    """
    require({f"bounds must be a StoreBounds, not {shown(bounds)}": isinstance(bounds, StoreBounds)})
    return bounds  # type: ignore[return-value]
