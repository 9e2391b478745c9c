"""The keys of a namespace, which all share one hash slot, so that one script can use them in a cluster."""

MAX_NAMESPACE = 255  # characters, which each script is told nine times
NAMES = ("meta", "destinations", "accounts", "latest", "queue", "waiting", "tails", "tail_uses", "absences")
"""What the scripts call them: see ``lua/common.lua``."""


def check_namespace(namespace: object) -> str:
    """Return a namespace.

    Raises:
        ValueError: It is no short text that can be a hash tag.
    """
    if (
        not isinstance(namespace, str)
        or not 0 < len(namespace) <= MAX_NAMESPACE
        or not namespace.isprintable()
        or not {*namespace}.isdisjoint("{}")
    ):
        raise ValueError(
            "namespace must be a text without braces, such as 'flagsync', of 1 to 255 printable characters"
        )
    return namespace


def keys_of(namespace: str) -> tuple[bytes, ...]:
    """Return the keys in the order of ``NAMES``. A cluster places keys by the text in braces alone."""
    return tuple(f"{{{namespace}}}:{name}".encode() for name in NAMES)
