"""The text of an identifier, the same for profiles, cohorts and traits.

Guarantee: an identity has one text, whatever type the application uses for it. Boundary: Flagsmith gets the
application's own object.
"""


def content_of(identifier: object) -> str:
    """Return the text of an identifier, with surrounding white space.

    For a ``str`` it is the content, which is what JSON contains, even if a subclass such as a ``(str, Enum)`` prints
    something else. For another type, such as an integer key or a UUID, it is ``str()``, which may raise anything.
    """
    if type(identifier) is str:  # almost always
        return identifier
    return str.__str__(identifier if isinstance(identifier, str) else str(identifier))


def text_of(identifier: object) -> str:
    """Return the text of an identifier without surrounding white space, which Flagsmith's server strips, too."""
    return content_of(identifier).strip()
