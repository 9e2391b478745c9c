"""Which trait belongs to which cohort."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync.cohorts._traits import MAX_KEY, Known, TraitKeys


def keys(*known: Known, **traits: str) -> list[str]:
    return [cohort.trait_key for cohort in TraitKeys(traits, lambda *_: True).of(known).values()]


def first(name: str, cohort_id: str = "7", number: int = 1) -> Known:
    return Known(number, cohort_id, name, name)


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
def test_a_cohort_is_called_after_its_name(name: str, key: str) -> None:
    assert keys(first(name)) == [key]


def test_the_name_at_first_sight_stays() -> None:
    assert keys(Known(1, "7", "VIPs", "Very important")) == ["mixpanel_cohort_vips"]


def test_no_two_cohorts_have_one_key() -> None:
    twins = first("VIPs", "7"), first("vips!", "8", 2), first("VIPs 8", "9", 3), first("VIPS", "8b", 4)
    expected = ["", "_8", "_8_9", "_8b"]
    assert keys(*twins) == [f"mixpanel_cohort_vips{suffix}" for suffix in expected]


@pytest.mark.parametrize(
    "traits",
    [{"7": "vip", "VIPs": "no"}, {"VIPs": "vip", "Very important": "no"}],
)
def test_a_mapping_goes_by_id_then_by_the_name_at_first_sight(traits: Mapping[str, str]) -> None:
    assert keys(Known(1, "7", "VIPs", "Very important"), **traits) == ["vip"]


def test_of_two_cohorts_with_the_configured_name_the_first_has_the_key() -> None:
    assert keys(first("VIPs"), first("VIPs", "8", 2), VIPs="vip") == ["vip", "mixpanel_cohort_vips"]


def test_a_configured_key_is_taken_from_who_had_it_by_default() -> None:
    known = first("VIPs"), first("Others", "8", 2)
    assert keys(*known, **{"8": "mixpanel_cohort_vips"}) == ["mixpanel_cohort_vips_7", "mixpanel_cohort_vips"]


def test_only_what_is_taken_is_there_and_the_keys_of_the_others_stay() -> None:
    twins = first("VIPs"), first("VIPs", "8", 2)
    [cohort] = TraitKeys({}, lambda cohort_id, _: cohort_id == "8").of(twins).values()
    assert cohort.trait_key == "mixpanel_cohort_vips_8"


@given(st.lists(st.tuples(st.text(max_size=300), st.text("0123456789", min_size=1, max_size=100)), max_size=9))
def test_whatever_the_names_every_cohort_has_a_key_of_its_own(cohorts: list[tuple[str, str]]) -> None:
    known = [first(name, f"{number}-{cohort_id}", number) for number, (name, cohort_id) in enumerate(cohorts)]
    found = keys(*known)
    assert len({*found}) == len(cohorts)
    assert all(0 < len(key) <= MAX_KEY for key in found)
