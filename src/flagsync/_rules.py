"""Rules of options: a sentence for each, and whether it holds.

Guarantee: all broken rules are in one ``ValueError``, and no message holds a text that may be secret.
"""

import inspect
import sys
from collections.abc import Awaitable, Mapping
from typing import TypeGuard
from urllib.parse import urlsplit

MAX_SHOWN = 10**20
_NAME = type.__dict__["__name__"]  # of a class itself: a metaclass may have another one, which may raise


def require(rules: Mapping[str, bool]) -> None:
    """Raise ``ValueError`` with each rule that does not hold."""
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise ValueError("; ".join(broken))


def shown(value: object) -> str:
    """Return what came instead of what is accepted, in words. Asks nothing of the object, and never raises."""
    kind = type(value)
    if value is None or kind in (bool, float) or (type(value) is int and abs(value) < MAX_SHOWN):
        return f"{value}"
    if kind is str and not value:
        return "an empty text"
    if issubclass(kind, type):
        return f"the class {_NAME.__get__(value)}: make an instance of it"
    if issubclass(kind, Awaitable):
        return f"a {_NAME.__get__(kind)}: await it first"
    return f"a value of type {_NAME.__get__(kind)}"


def call_fault(function: object, arguments: int = 1) -> str:
    """Return why a function cannot be called with so many arguments; empty if nothing is known against it.

    Its signature is asked. To call it would need arguments that it knows, such as a key of a mapping, and might have
    effects.
    """
    if not callable(function):
        return shown(function)
    # What is awaited or iterated over by nobody does nothing at all.
    call = getattr(type(function), "__call__", None)  # noqa: B004 - it is the method that is asked
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    if any(is_kind(candidate) for is_kind in kinds for candidate in (function, call)):
        return "an async function or a generator, which nobody awaits or iterates over"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of C, without one
        return ""
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        return f"one that cannot be called so ({error})"
    return ""


def is_instance_of(value: object, role: type) -> bool:
    """Return whether an object has the methods of a protocol. A class has them, too, but cannot be used."""
    return isinstance(value, role) and not isinstance(value, type)


def is_url(value: object) -> bool:
    """Return whether a value is an absolute HTTP(S) URL without query and fragment."""
    if not isinstance(value, str):
        return False
    try:
        parts = urlsplit(value)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return is_whole and value.split() == [value] and not {"?", "#"} & {*value}


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is a finite number."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


def key_fault(value: object) -> str:
    """Return why a value is no key or token, without showing it; empty if nothing is known against it."""
    if not isinstance(value, str) or not value:
        return shown(value)
    is_plain = value.isascii() and value.isprintable() and not {*" <>"} & {*value} and not value.endswith(".")
    return "" if is_plain else "a placeholder such as 'ser.…' or '<your key>', nor text with white space"
