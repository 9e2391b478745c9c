"""The keys of a namespace, which all share one hash slot, so that one script can use them in a cluster."""

NAMES = ("meta", "destinations", "accounts", "latest", "queue", "waiting", "tails", "tail_uses", "absences")
"""What the scripts call them: see ``lua/common.lua``."""


def check_namespace(namespace: object) -> str:
    """Return a namespace.

    Raises:
        ValueError: It is no text that can be a hash tag.
    """
    if not isinstance(namespace, str) or not namespace or not {*namespace}.isdisjoint("{}"):
        raise ValueError("namespace must be a text without braces, such as 'flagsync', and not be empty")
    return namespace


def keys_of(namespace: str) -> tuple[bytes, ...]:
    """Return the keys in the order of ``NAMES``. A cluster places keys by the text in braces alone."""
    return tuple(f"{{{namespace}}}:{name}".encode() for name in NAMES)
