"""The keys of the traits of cohorts."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync.cohorts.keys import MAX_KEY, KnownCohort, TraitKeys


def keys(*known: KnownCohort, **traits: str) -> list[str]:
    return [cohort.trait_key for cohort in TraitKeys(traits, lambda *_: True).of(known).values()]


def first(name: str, cohort_id: str = "7", number: int = 1) -> KnownCohort:
    return KnownCohort(number, cohort_id, name, name)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Power users", "mixpanel_cohort_power_users"),
        ("  VIPs (2026)! ", "mixpanel_cohort_vips_2026"),
        ("Straße", "mixpanel_cohort_strasse"),
        ("日本 users", "mixpanel_cohort_日本_users"),
        ("!?", "mixpanel_cohort_7"),
        ("x" * 300, "mixpanel_cohort_" + "x" * 184),
    ],
)
def test_key_is_made_of_the_name_of_the_cohort(name: str, key: str) -> None:
    assert keys(first(name)) == [key]


def test_key_is_made_of_the_name_at_first_sight() -> None:
    assert keys(KnownCohort(1, "7", "VIPs", "Very important")) == ["mixpanel_cohort_vips"]


def test_keys_of_cohorts_with_similar_names_differ() -> None:
    twins = first("VIPs", "7"), first("vips!", "8", 2), first("VIPs 8", "9", 3), first("VIPS", "8b", 4)
    expected = ["", "_8", "_8_9", "_8b"]
    assert keys(*twins) == [f"mixpanel_cohort_vips{suffix}" for suffix in expected]


@pytest.mark.parametrize(
    "traits",
    [{"7": "vip", "VIPs": "no"}, {"VIPs": "vip", "Very important": "no"}],
)
def test_configured_key_is_found_by_id_then_by_the_name_at_first_sight(traits: Mapping[str, str]) -> None:
    assert keys(KnownCohort(1, "7", "VIPs", "Very important"), **traits) == ["vip"]


def test_configured_key_goes_to_the_first_of_two_cohorts_with_that_name() -> None:
    assert keys(first("VIPs"), first("VIPs", "8", 2), VIPs="vip") == ["vip", "mixpanel_cohort_vips"]


def test_configured_key_is_withheld_from_a_cohort_that_would_have_it_by_default() -> None:
    known = first("VIPs"), first("Others", "8", 2)
    assert keys(*known, **{"8": "mixpanel_cohort_vips"}) == ["mixpanel_cohort_vips_7", "mixpanel_cohort_vips"]


def test_cohort_that_is_left_out_keeps_its_key() -> None:
    twins = first("VIPs"), first("VIPs", "8", 2)
    [cohort] = TraitKeys({}, lambda cohort_id, _: cohort_id == "8").of(twins).values()
    assert cohort.trait_key == "mixpanel_cohort_vips_8"


@given(st.lists(st.tuples(st.text(max_size=300), st.text("0123456789", min_size=1, max_size=100)), max_size=9))
def test_keys_differ_whatever_the_names(cohorts: list[tuple[str, str]]) -> None:
    known = [first(name, f"{number}-{cohort_id}", number) for number, (name, cohort_id) in enumerate(cohorts)]
    found = keys(*known)
    assert len({*found}) == len(cohorts)
    assert all(0 < len(key) <= MAX_KEY for key in found)
