"""What an identifier is: the same for profiles, cohorts and traits.

Guarantee: one text for each identity, whatever type the application has for it. Flagsmith gets the application's own
object.
"""


def content_of(identifier: object) -> str:
    """Return the text of an identifier as it is.

    That of a ``str`` is its content, also where a subclass shows another text, as a ``(str, Enum)`` does: it is what
    JSON has. That of another type, such as a primary key or a UUID, is ``str()``, which may raise anything.
    """
    return str.__str__(identifier) if isinstance(identifier, str) else str(identifier)


def text_of(identifier: object) -> str:
    """Return the text of an identifier without white space round it, which Flagsmith's server removes, too."""
    return content_of(identifier).strip()
