"""Flags -> Mixpanel profile properties.

Guarantee: by default the names and values, types included, that Flagsmith's own integration sends. What
Mixpanel would cut is reported once a flag and sent; what it cannot hold, or what would overwrite the user's
reserved properties, is reported once a flag and left out.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from flagsmith.models import Flag

PropertyValue: TypeAlias = str | float | bool | Sequence["PropertyValue"] | Mapping[str, "PropertyValue"]
"""What a Mixpanel property holds; numbers are finite."""

# https://docs.mixpanel.com/docs/data-structure/user-profiles
MAX_PROPERTIES, MAX_NAME_CHARACTERS, MAX_STRING_BYTES, MAX_OBJECT_BYTES = 2000, 255, 255, 256_000
SHORT = MAX_STRING_BYTES // 4  # in characters, which have no more than four bytes each


def served_value(flag: Flag) -> PropertyValue:
    """The value if the flag is enabled and has one, else its boolean state.

    An enabled flag whose value is ``0``, ``""`` or ``False`` becomes ``True``, as it does on Flagsmith's own
    server, which may write to the same profile.
    """
    return flag.value if flag.enabled and flag.value else flag.enabled


class Properties:
    """Builds the ``$set`` of a profile."""

    def __init__(
        self,
        name: Callable[[str], str | None],
        value: Callable[[Flag], PropertyValue],
        warn: Callable[[str], None],
    ) -> None:
        self._name, self._value, self._warn = name, value, warn
        self._names = _Learned(self._learn)
        self._owners: dict[str, str] = {}  # a name as Mixpanel keeps it -> the feature that has it

    def of(self, flags: Iterable[Flag]) -> dict[str, PropertyValue]:
        """Property name -> value, in the order of the flags."""
        properties: dict[str, PropertyValue] = {}
        names, value_of = self._names, self._value
        for flag in flags:
            if (name := names[flag.feature_name]) is None:
                continue
            try:
                value = value_of(flag)
                # No closer look at booleans and short strings, which most values are.
                if value is not True and value is not False and (type(value) is not str or len(value) >= SHORT):
                    value = self._checked(flag.feature_name, value)
                properties[name] = value
            except Exception as error:  # noqa: BLE001 - the application's callback may raise anything
                self._warn(
                    f"Flag {flag.feature_name!r} is left out: no property value ({type(error).__name__})"
                )
        if len(properties) > MAX_PROPERTIES:
            self._warn(
                f"Mixpanel fails what is past {MAX_PROPERTIES} properties: let property_name leave out some"
            )
        return properties

    def _learn(self, feature: str) -> str | None:
        """The property name of a feature."""
        try:
            name = self._name(feature)
            if name is None:
                return None
            if not isinstance(name, str) or not name or name.startswith(("$", "mp_")):
                raise ValueError("Mixpanel reserves $… and mp_…: another name from property_name mends it")
        except Exception as error:  # noqa: BLE001 - the application's callback may raise anything
            self._warn(f"Flag {feature!r} is left out: no property name ({error!r})")
            return None
        if len(name) > MAX_NAME_CHARACTERS:
            self._warn(f"Flag {feature!r}: Mixpanel cuts names to {MAX_NAME_CHARACTERS} characters")
        if self._owners.setdefault(name[:MAX_NAME_CHARACTERS], feature) != feature:
            self._warn(f"Flag {feature!r}: another flag has the same property name in Mixpanel")
        return name

    def _checked(self, feature: str, value: PropertyValue) -> PropertyValue:
        """The value in plain JSON types; raises what ``json`` raises for what it cannot hold."""
        if type(value) not in (int, str):  # NaN, a list, an object, the application's own type
            value = json.loads(json.dumps(value, allow_nan=False))
        if value is None:
            raise TypeError
        if isinstance(value, str) and len(value.encode(errors="surrogatepass")) > MAX_STRING_BYTES:
            self._warn(f"Flag {feature!r}: Mixpanel cuts its value to {MAX_STRING_BYTES} bytes")
        if isinstance(value, (list, dict)) and len(json.dumps(value)) > MAX_OBJECT_BYTES:
            self._warn(f"Flag {feature!r}: Mixpanel holds no more than {MAX_OBJECT_BYTES} bytes of its value")
        return value


class _Learned(dict[str, str | None]):
    """Asks once for each key."""

    def __init__(self, ask: Callable[[str], str | None]) -> None:
        self._ask = ask

    def __missing__(self, key: str) -> str | None:
        self[key] = answer = self._ask(key)
        return answer
