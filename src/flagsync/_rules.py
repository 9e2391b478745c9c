"""Rules of options: a sentence for each, and whether it holds.

Guarantee: all broken rules are in one ``ValueError``.
"""

import sys
from collections.abc import Mapping
from typing import TypeGuard
from urllib.parse import urlsplit


def require(rules: Mapping[str, bool]) -> None:
    """Raise ``ValueError`` with each rule that does not hold."""
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise ValueError("; ".join(broken))


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
