"""Lets a client have the public names of the Flagsmith client that it wraps, besides its own.

Boundary: they are read, not set. To set an attribute of the Flagsmith client, use ``client.flagsmith``.
"""

# It is not public, but Flagsmith's OpenFeature provider (1.0) drops events if there is none.
EVENT_PROCESSOR = "_event_processor"
UNKNOWN = "{!r} object has no attribute {!r}{}"
NEITHER = ", and neither has the Flagsmith client that it wraps"
NOT_BUILT = ": __init__() of FlagSync has not run to its end"


def delegated(client: object, name: str) -> object:
    """Return an attribute that a client does not define itself: the ``__getattr__`` of its class.

    Raises:
        AttributeError: The Flagsmith client has no such attribute, or it is private.
    """
    flagsmith = vars(client).get("flagsmith")
    reason, cause = "", None
    if flagsmith is None:
        reason = NOT_BUILT
    elif not name.startswith("_") or name == EVENT_PROCESSOR:
        try:
            return getattr(flagsmith, name)
        except AttributeError as error:  # a property of a subclass may raise it for another reason
            reason, cause = NEITHER, error
    raise AttributeError(UNKNOWN.format(type(client).__name__, name, reason), name=name, obj=client) from cause


def names(client: object) -> list[str]:
    """Return the names of a client and those that are delegated: the ``__dir__`` of its class."""
    flagsmith = vars(client).get("flagsmith")
    return sorted({*object.__dir__(client), *(name for name in dir(flagsmith) if not name.startswith("_"))})
