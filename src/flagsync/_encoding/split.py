"""A flag with variants that no segment overrides: a hash selects the variant of an identity.

Guarantee: the variant is the one that Flagsmith's engine selects. Boundary: the engine evaluates the flag itself, once
for each variant.
"""

from collections.abc import Mapping
from hashlib import md5
from operator import itemgetter
from typing import Any

HASHES, TOP = (
    9999,
    9998,
)  # flag_engine.utils.hashing (flagsmith-flag-engine 11.1): 0 to 9998, of which 9998 counts as 100 %


class Split:
    """A feature whose flag depends on nothing but a hash of its key and of the identity's.

    Args:
        feature: The feature, as Flagsmith's engine takes it.

    Raises:
        Exception: The engine would refuse the variants, too.

    Attributes:
        name: Its name.
    """

    def __init__(self, feature: Mapping[str, Any]) -> None:
        self.name: str = feature["name"]
        self._hashed = f"{feature['key']},".encode()
        self._shares, start = list[tuple[float, float]](), 0.0
        for variant in sorted(feature["variants"], key=itemgetter("priority")):
            limit = variant["weight"] + start
            self._shares.append((start, limit))
            start = limit

    def variant_of(self, identity_key: bytes) -> int:
        """Return the place of the identity's variant in the order of priority; after the last one: no variant."""
        hashed = once = self._hashed + identity_key
        while (place := int.from_bytes(md5(hashed, usedforsecurity=False).digest()) % HASHES) == TOP:
            hashed += b"," + once  # 100 % is nobody's share: the engine hashes again
        percentage = place / TOP * 100
        for number, (start, limit) in enumerate(self._shares):
            if start <= percentage < limit:
                return number
        return len(self._shares)
