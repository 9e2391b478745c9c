"""Flags -> Mixpanel profile properties, as JSON.

Guarantee: by default the names and values, types included, that Flagsmith's own integration sends. Values that Mixpanel
would cut are sent. Values that it cannot hold are left out, and so are names that it reserves. Both are reported once
per flag.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from flagsmith.models import Flag

from flagsync._report import described, is_interrupt_of_application

PropertyValue: TypeAlias = str | float | bool | Sequence["PropertyValue"] | Mapping[str, "PropertyValue"]
"""What a Mixpanel property can hold; numbers must be finite."""

# https://docs.mixpanel.com/docs/data-structure/user-profiles
MAX_PROPERTIES, MAX_NAME_CHARACTERS, MAX_STRING_BYTES, MAX_OBJECT_BYTES = 2000, 255, 255, 256_000
RESERVED_PREFIXES = ("$", "mp_")  # what names of Mixpanel's own properties begin with
MAX_CACHED_VALUES = 100  # per flag, which has few
CACHED_TYPES = (str, int)  # exactly these: equal values of other types may have different JSON


def served_value(flag: Flag) -> PropertyValue:
    """Return the value if the flag is enabled and has one, else whether it is enabled.

    An enabled flag whose value is ``0``, ``""`` or ``False`` becomes ``True``, as it does on Flagsmith's own
    server, which may write to the same profile.
    """
    return flag.value if flag.enabled and flag.value else flag.enabled


class Properties:
    """Writes the properties of a profile as JSON, and caches the JSON of each property's last values.

    Args:
        name: Feature name -> property name; None leaves the flag out. Called once for each feature.
        value: Flag -> property value.
        warn: Called with each problem, however often it occurs.
    """

    def __init__(
        self,
        name: Callable[[str], str | None],
        value: Callable[[Flag], PropertyValue],
        warn: Callable[[str], None],
    ) -> None:
        self._name, self._value, self._warn = name, value, warn
        self._properties: dict[str, _Property | None] = {}  # by feature; None: left out
        self._raised: set[str] = set()  # exceptions of callbacks that were reported
        self._names: dict[str, set[str]] = {}  # a name as Mixpanel stores it -> the names that are cut to it

    def declare(self, features: Iterable[str]) -> str:
        """Name the properties of features, in this order; return a text that is equal for equal names."""
        found = [self._properties[name] if name in self._properties else self._add(name) for name in features]
        return "\0".join(member.true for member in found if member is not None)

    def names(self, features: Iterable[str]) -> dict[str, str]:
        """Return the names of the properties that declared features have."""
        found = {feature: self._properties[feature] for feature in features}
        return {feature: one.name for feature, one in found.items() if one is not None}

    def members(self, flags: Iterable[Flag]) -> list[str]:
        """Return the members of a JSON object, in the order of the flags; those without a property are left out."""
        members = []
        properties, value_of = self._properties, self._value
        for flag in flags:
            feature = flag.feature_name
            found = properties[feature] if feature in properties else self._add(feature)
            if found is None:
                continue
            try:
                value = value_of(flag)
            except BaseException as error:  # the application's callback may raise anything
                if is_interrupt_of_application(error):
                    raise
                self._report_raised("property_value", error)
                continue
            try:
                if value is True or value is False:  # a cache would take them for 1 and 0
                    members.append(found.true if value else found.false)
                else:
                    encode = found.encode_cached if type(value) in CACHED_TYPES else found.encode
                    members.append(encode(value))
            except BaseException as error:  # a value may be an object of the application, too
                if is_interrupt_of_application(error):
                    raise
                self._leave_out(feature, f"Mixpanel cannot store its value ({type(error).__name__})")
        return members

    def check_count(self, count: int) -> None:
        """Warn of more properties than Mixpanel takes."""
        if count > MAX_PROPERTIES:
            self._warn(
                f"Mixpanel refuses properties beyond the first {MAX_PROPERTIES}: leave some out with property_name"
            )

    def _add(self, feature: str) -> "_Property | None":
        """Return the property of a feature that was not seen before; None if the feature is left out."""
        self._properties[feature] = None
        try:
            name = self._name(feature)
        except BaseException as error:  # the application's callback may raise anything
            if is_interrupt_of_application(error):
                raise
            self._report_raised("property_name", error)
            return None
        if name is None:
            return None
        if not isinstance(name, str) or not name:
            problem = "property_name returned neither a name nor None"
        elif name.startswith(RESERVED_PREFIXES):
            problem = "Mixpanel reserves $… and mp_…; property_name may give another name"
        elif name in (cut_alike := self._names.setdefault(name[:MAX_NAME_CHARACTERS], set())):
            problem = "another flag has this name; property_name may give another one"
        else:
            return self._add_named(feature, name, cut_alike)
        self._leave_out(feature, problem)
        return None

    def _add_named(self, feature: str, name: str, cut_alike: set[str]) -> "_Property":
        if len(name) > MAX_NAME_CHARACTERS:
            self._warn(f"Flag {feature!r}: Mixpanel truncates names to {MAX_NAME_CHARACTERS} characters")
        if cut_alike:
            self._warn(f"Flag {feature!r}: another flag has the same property name in Mixpanel")
        cut_alike.add(name)
        self._properties[feature] = added = _Property(name, f"Flag {feature!r}", self._warn)
        return added

    def _leave_out(self, feature: str, reason: str) -> None:
        self._warn(f"Flag {feature!r} is left out: {reason}")

    def _report_raised(self, callback: str, error: BaseException) -> None:
        """Report an exception of a callback, once for all flags."""
        if (kind := f"{callback} raised {type(error).__name__}") not in self._raised:
            self._raised.add(kind)
            self._warn(f"{callback} raised {described(error)}. Flags for which it raises are left out")


class _Property:
    """Encodes the name and a value of one property as a member of a JSON object.

    Attributes:
        name: Its name.
        true: The member if the value is true.
        false: The member if the value is false.
    """

    def __init__(self, name: str, flag: str, warn: Callable[[str], None]) -> None:
        self.name, self._json, self._flag, self._warn = name, json.dumps(name), flag, warn
        self.true, self.false = f"{self._json}:true", f"{self._json}:false"
        self.encode_cached = lru_cache(MAX_CACHED_VALUES)(self.encode)

    def encode(self, value: PropertyValue) -> str:
        """Return the member; raise what ``json`` raises for a value that JSON cannot hold."""
        text = json.dumps(value, allow_nan=False)
        value = json.loads(text)  # as Mixpanel reads it: a tuple is a list
        if value is None:
            raise TypeError
        if isinstance(value, str) and len(value.encode(errors="surrogatepass")) > MAX_STRING_BYTES:
            self._warn(f"{self._flag}: Mixpanel truncates its value to {MAX_STRING_BYTES} bytes")
        if isinstance(value, (list, dict)) and len(text) > MAX_OBJECT_BYTES:
            self._warn(f"{self._flag}: Mixpanel stores no more than {MAX_OBJECT_BYTES} bytes of its value")
        return f"{self._json}:{text}"
