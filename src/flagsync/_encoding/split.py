"""A flag with variants that no segment overrides: a hash selects the variant of an identity.

Guarantee: the variant is the one that Flagsmith's engine selects. Boundary: the engine evaluates the flag itself, once
for each variant.
"""

from bisect import bisect_right
from collections.abc import Mapping
from hashlib import md5
from itertools import accumulate
from operator import itemgetter
from typing import Any

# flag_engine.utils.hashing (flagsmith-flag-engine 11.1): a hash is one of 0 to 9998, and 9998 counts as 100 %.
HASHES, TOP = 9999, 9998


class Split:
    """A feature whose flag depends on nothing but a hash of its key and of the identity's.

    Args:
        feature: The feature, as Flagsmith's engine takes it.

    Raises:
        Exception: The variants have no shares: a weight is negative or no number, for example.

    Attributes:
        feature: The feature.
        name: Its name.
    """

    def __init__(self, feature: Mapping[str, Any]) -> None:
        self.feature, self.name = feature, feature["name"]
        self._hashed = f"{feature['key']!s},".encode()
        weights = [variant["weight"] for variant in sorted(feature["variants"], key=itemgetter("priority"))]
        self._limits = [*accumulate(weights, initial=0.0)][1:]  # where each share ends, and the next one begins
        if any(not weight >= 0 for weight in weights):
            raise ValueError

    def variant_of(self, identity_key: bytes) -> int:
        """Return the place of the identity's variant in the order of priority; after the last one: no variant."""
        hashed = once = self._hashed + identity_key
        while (place := int.from_bytes(md5(hashed).digest()) % HASHES) == TOP:  # noqa: S324 - as the engine
            hashed += b"," + once  # 100 % is nobody's share: the engine hashes again
        return bisect_right(self._limits, place / TOP * 100)
