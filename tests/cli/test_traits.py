"""Traits of a command line."""

import pytest

from flagsync._cli.failure import Failure
from flagsync._cli.traits import Trait, traits_of, typed


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("plan=pro", {"plan": "pro"}),
        ("plan=", {"plan": ""}),
        ("formula=a=b", {"formula": "a=b"}),
        ("age=30", {"age": "30"}),
        ("age:int=30", {"age": 30}),
        ("age:str=30", {"age": "30"}),
        ("weight:float=1.5", {"weight": 1.5}),
        ("beta:bool=True", {"beta": True}),
        ("beta:bool=0", {"beta": False}),
        ("shop:plan:str=pro", {"shop:plan": "pro"}),
    ],
)
def test_traits_are_text_unless_they_have_a_type(text: str, traits: dict[str, Trait]) -> None:
    found = traits_of([text])
    assert found == traits
    assert [type(value) for value in found.values()] == [type(value) for value in traits.values()]


@pytest.mark.parametrize("text", ["plan", "=pro", ":int=1", "shop:plan=pro", ""])
def test_traits_of_another_form_are_refused_with_the_accepted_one(text: str) -> None:
    with pytest.raises(
        Failure, match=r"--trait takes name=value or name:type=value, where type is str, int, float"
    ):
        traits_of([text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age:int=old", "--trait age:int: 'old' is not a value of type int"),
        ("age:float=nan", "--trait age:float: 'nan' is not a value of type float"),
        ("beta:bool=maybe", "--trait beta:bool: 'maybe' is not true or false"),
    ],
)
def test_traits_whose_value_has_another_type_are_refused(text: str, message: str) -> None:
    with pytest.raises(Failure) as raised:
        traits_of([text])
    assert f"{raised.value}" == message
    assert raised.value.code == 2


def test_trait_that_is_given_twice_is_refused() -> None:
    with pytest.raises(Failure, match="'plan' is given twice"):
        traits_of(["plan=pro", "plan:str=free"])


def test_typed_refuses_a_type_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="'1' is not a value of type complex"):
        typed("1", "complex")
