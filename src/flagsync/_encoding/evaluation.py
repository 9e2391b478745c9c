"""``Flags`` -> what one identity was served; the only module that knows the insides of ``Flags``.

Guarantee: the caller's ``Flags`` are only read, without a race, and nothing counts as usage in Flagsmith's analytics.
"""

from typing import Any, TypeAlias

from flagsmith.models import Flag, Flags

from flagsync._report import is_interrupt_of_application

Context: TypeAlias = dict[str, Any]
"""What Flagsmith's engine evaluates: ``environment``, ``features``, ``segments`` and an ``identity``."""
Identity: TypeAlias = dict[str, Any]
"""The ``identity`` of a context: ``identifier`` and ``traits``."""


def context_of(flags: Flags) -> Context | None:
    """Return the context that lazy ``Flags`` are evaluated from; None for other objects. Never raises."""
    if type(flags) is Flags:  # only a signal handler of the application can raise here
        return flags._context  # type: ignore[return-value] # noqa: SLF001 - nothing public has it (flagsmith 6.3)
    # isinstance() may run code of the object, which may raise; type() does not.
    try:
        if issubclass(type(flags), Flags):
            return flags._context  # type: ignore[return-value] # noqa: SLF001 - as above
    except BaseException as error:
        if is_interrupt_of_application(error):
            raise
    return None


def is_evaluated(flags: Flags) -> bool:
    """Return False for the empty ``Flags`` that a ``default_flag_handler`` fills (flagsmith 6.3)."""
    return bool(getattr(flags, "flags", True))


def evaluate(context: Context) -> list[Flag]:
    """Return every flag of a context.

    It evaluates a private copy. The caller's own ``Flags`` fill their cache while the caller reads, and can disagree
    with a fresh evaluation where features depend on each other (flagsmith 6.3).
    """
    return Flags.from_evaluation_context(context, {}, None, None).all_flags()  # type: ignore[arg-type]
