"""Splits: the hash of an identity decides about the variant, as in Flagsmith's engine."""

from hashlib import md5
from itertools import pairwise
from typing import Any

import pytest
from flag_engine.utils.hashing import get_hashed_percentage_for_object_ids
from hypothesis import given
from hypothesis import strategies as st

from flagsync._encoding.evaluation import evaluate
from flagsync._encoding.split import HASHES, TOP, Split

HASHED_TWICE = "user_4617"  # with the keys below, the first hash is 100 %


def feature(*weights: float, priorities: list[int] | None = None) -> dict[str, Any]:
    variants = [
        {"value": number, "weight": weight, "priority": number if priorities is None else priorities[number]}
        for number, weight in enumerate(weights)
    ]
    own = {"key": "1", "name": "a", "enabled": True, "value": len(weights), "metadata": {"id": 1}}
    return {**own, "variants": variants}


def engines(feature: Any, identifier: object) -> object:
    """Return the value that the engine gives: the number of the variant in the list."""
    identity = {"identifier": identifier, "traits": {}}
    environment = {"key": "environment-key", "name": "Production"}
    context = {"environment": environment, "features": {"a": feature}, "segments": {}, "identity": identity}
    return evaluate(context)[0].value


def ours(feature: Any, identifier: object) -> int:
    return Split(feature).variant_of(f"environment-key_{identifier}".encode())


WEIGHTS = st.sampled_from([0.0, 10, 33.3, 50.0, 100.0, float("inf")]) | st.floats(0, 100)


@given(
    st.lists(WEIGHTS, min_size=1, max_size=5), st.text(st.characters(exclude_categories=["Cs"])) | st.integers()
)
def test_variant_is_the_engines(weights: list[float], identifier: object) -> None:
    assert ours(feature(*weights), identifier) == engines(feature(*weights), identifier)


def test_variants_count_by_priority_and_equal_ones_in_their_order() -> None:
    one = feature(20.0, 20.0, 20.0, 20.0, priorities=[2, 1, 2, 0])
    in_order = [3, 1, 0, 2, 4]
    found = {(in_order[ours(one, number)], engines(one, number)) for number in range(100)}
    assert found == {(place, place) for place in range(5)}


def test_share_of_a_variant_ends_where_the_next_one_begins() -> None:
    percentage = get_hashed_percentage_for_object_ids(["1", "environment-key_user_1"])
    for weights in ([percentage, 10.0], [percentage + 1e-9, 10.0], [percentage / 2, percentage / 2, 10.0]):
        assert ours(feature(*weights), "user_1") == engines(feature(*weights), "user_1")


def test_hash_of_100_percent_is_hashed_again() -> None:
    first = md5(f"1,environment-key_{HASHED_TWICE}".encode(), usedforsecurity=False)
    assert int.from_bytes(first.digest()) % HASHES == TOP
    second = get_hashed_percentage_for_object_ids(["1", f"environment-key_{HASHED_TWICE}"])
    bounds = [0.0, second - 1e-9, second, second + 1e-9, 100.0]
    one = feature(*(after - before for before, after in pairwise(bounds)))
    assert ours(one, HASHED_TWICE) == engines(one, HASHED_TWICE) != len(one["variants"])


@pytest.mark.parametrize("weight", ["half", None, -10.0, float("nan")])
def test_weight_that_is_no_share_is_refused(weight: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Split(feature(10.0, weight, 20.0))
