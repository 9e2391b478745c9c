"""Rules that options must meet: each in words, and whether it is met.

Guarantee: one ``ValueError`` names all broken rules, and no message contains text that may be secret.
"""

import inspect
import sys
from collections.abc import Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import TypeGuard
from urllib.parse import urlsplit

MAX_SHOWN = 10**20
# Of the class itself: those of a metaclass may raise.
_NAME, _ORDER, _NAMESPACE = (type.__dict__[name] for name in ("__name__", "__mro__", "__dict__"))


def require(rules: Mapping[str, bool]) -> None:
    """Raise ``ValueError`` with each rule that does not hold."""
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise ValueError("; ".join(broken))


def shown(value: object) -> str:
    """Describe a value that is not accepted. Calls no code of the value, and never raises."""
    kind = type(value)
    if value is None or kind in (bool, float) or (type(value) is int and abs(value) < MAX_SHOWN):
        return f"{value}"
    if kind is str and not value:
        return "an empty text"
    if issubclass(kind, type):
        return f"the class {_NAME.__get__(value)}: make an instance of it"
    if any("__await__" in _NAMESPACE.__get__(base) for base in _ORDER.__get__(kind)):
        return f"a {_NAME.__get__(kind)}: await it first"
    return f"a value of type {_NAME.__get__(kind)}"


def call_fault(function: object, arguments: int = 1) -> str:
    """Return why a function cannot be called with this many arguments; empty if it can, as far as that is known.

    Only the signature is checked. A trial call would need valid arguments, such as a key of a mapping, and might have
    side effects.
    """
    if not callable(function):
        return shown(function)
    # A coroutine or generator that nobody awaits or iterates over does nothing at all.
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is inspected
    if is_deferred(function) or is_deferred(call):
        return "an async function or a generator, which is never awaited or iterated over"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a C function may have none
        return ""
    try:
        signature.bind(*[None] * arguments)
    except TypeError as error:
        return f"one that cannot be called like that ({error})"
    return ""


def is_deferred(function: object) -> bool:
    """Return whether a call returns a coroutine or a generator.

    ``inspect`` takes a mock for each kind of function that it may stand for.
    """
    kinds = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
    is_function = issubclass(type(function), (FunctionType, MethodType, partial))
    return is_function and any(is_kind(function) for is_kind in kinds)


def is_instance_of(value: object, role: type) -> bool:
    """Return whether an object has the methods of a protocol; False for a class, which has them, too."""
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
    """Return why a value cannot be a key or token, without showing it; empty if it may be one."""
    if not isinstance(value, str) or not value:
        return shown(value)
    is_plain = value.isascii() and value.isprintable() and not {*" <>"} & {*value} and not value.endswith(".")
    return "" if is_plain else "a placeholder such as 'ser.…' or '<your key>', nor text with white space"
