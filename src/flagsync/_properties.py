"""Flags -> Mixpanel profile properties, as JSON.

Guarantee: by default the names and values, types included, that Flagsmith's own integration sends. What
Mixpanel would cut is reported once a flag and sent; what it cannot hold, or what would overwrite the user's
reserved properties, is reported once a flag and left out.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from flagsmith.models import Flag

PropertyValue: TypeAlias = str | float | bool | Sequence["PropertyValue"] | Mapping[str, "PropertyValue"]
"""What a Mixpanel property holds; numbers are finite."""

# https://docs.mixpanel.com/docs/data-structure/user-profiles
MAX_PROPERTIES, MAX_NAME_CHARACTERS, MAX_STRING_BYTES, MAX_OBJECT_BYTES = 2000, 255, 255, 256_000
MAX_KNOWN_VALUES = 100  # of a flag, which has few
LEARNED_TYPES = (str, int)


def served_value(flag: Flag) -> PropertyValue:
    """The value if the flag is enabled and has one, else its boolean state.

    An enabled flag whose value is ``0``, ``""`` or ``False`` becomes ``True``, as it does on Flagsmith's own
    server, which may write to the same profile.
    """
    return flag.value if flag.enabled and flag.value else flag.enabled


class Properties:
    """Writes the ``$set`` of a profile as JSON, which each property knows by heart for each of its values."""

    def __init__(
        self,
        name: Callable[[str], str | None],
        value: Callable[[Flag], PropertyValue],
        warn: Callable[[str], None],
    ) -> None:
        self._name, self._value, self._warn = name, value, warn
        self._learned: dict[str, _Property | None] = {}
        self._taken: dict[str, set[str]] = {}  # a name as Mixpanel keeps it -> the names that become it

    def of(self, flags: Iterable[Flag]) -> str:
        """A JSON object, in the order of the flags; empty if no flag has a property."""
        members = []
        learned, value_of = self._learned, self._value
        for flag in flags:
            feature = flag.feature_name
            known = learned[feature] if feature in learned else self._learn(feature)
            if known is None:
                continue
            try:
                value = value_of(flag)
                if value is True or value is False:  # which a dict takes for 1 and 0
                    members.append(known.true if value else known.false)
                else:
                    write = known.known if type(value) in LEARNED_TYPES else known.written
                    members.append(write(value))
            except BaseException as error:  # noqa: BLE001 - the application's callback may raise anything
                self._leave_out(feature, f"no property value ({type(error).__name__})")
        if len(members) > MAX_PROPERTIES:
            self._warn(
                f"Mixpanel fails what is past {MAX_PROPERTIES} properties: let property_name leave out some"
            )
        return f"{{{','.join(members)}}}" if members else ""

    def _learn(self, feature: str) -> "_Property | None":
        """The property of a feature; its name is asked for once."""
        self._learned[feature] = None
        try:
            name = self._name(feature)
        except BaseException as error:  # noqa: BLE001 - the application's callback may raise anything
            self._leave_out(feature, f"property_name raised {type(error).__name__}")
            return None
        if name is None:
            return None
        if not isinstance(name, str) or not name:
            problem = "property_name returned no text"
        elif name.startswith(("$", "mp_")):
            problem = "Mixpanel reserves $… and mp_…; property_name may give another name"
        elif name in (taken := self._taken.setdefault(name[:MAX_NAME_CHARACTERS], set())):
            problem = "another flag has this name; property_name may give another one"
        else:
            return self._know(feature, name, taken)
        self._leave_out(feature, problem)
        return None

    def _know(self, feature: str, name: str, taken: set[str]) -> "_Property":
        if len(name) > MAX_NAME_CHARACTERS:
            self._warn(f"Flag {feature!r}: Mixpanel cuts names to {MAX_NAME_CHARACTERS} characters")
        if taken:
            self._warn(f"Flag {feature!r}: another flag has the same property name in Mixpanel")
        taken.add(name)
        self._learned[feature] = known = _Property(name, f"Flag {feature!r}", self._warn)
        return known

    def _leave_out(self, feature: str, reason: str) -> None:
        self._warn(f"Flag {feature!r} is left out: {reason}")


class _Property:
    """Value -> the JSON of name and value, ``known`` by heart where a value can be looked up."""

    def __init__(self, name: str, flag: str, warn: Callable[[str], None]) -> None:
        self._name, self._flag, self._warn = json.dumps(name), flag, warn
        self.true, self.false = f"{self._name}:true", f"{self._name}:false"
        self.known = lru_cache(MAX_KNOWN_VALUES)(self.written)

    def written(self, value: PropertyValue) -> str:
        """The JSON; raises what ``json`` raises for what it cannot hold."""
        text = json.dumps(value, allow_nan=False)
        value = json.loads(text)  # a subclass of str, a tuple: what Mixpanel makes of it
        if value is None:
            raise TypeError
        if isinstance(value, str) and len(value.encode(errors="surrogatepass")) > MAX_STRING_BYTES:
            self._warn(f"{self._flag}: Mixpanel cuts its value to {MAX_STRING_BYTES} bytes")
        if isinstance(value, (list, dict)) and len(text) > MAX_OBJECT_BYTES:
            self._warn(f"{self._flag}: Mixpanel holds no more than {MAX_OBJECT_BYTES} bytes of its value")
        return f"{self._name}:{text}"
