"""Settings of a durable outbox. Users choose only ``StoreBounds``, through a backend; tests choose both."""

from dataclasses import dataclass


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
            up to 30 seconds.
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
