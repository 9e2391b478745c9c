"""The body of a call of Mixpanel's cohort webhook, parsed."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flagsync.cohorts import CohortUpdate
from flagsync.cohorts.update import ACTIONS

DEEP = 100_000
WHOLE = "must be a whole number from 1 to 1,000,000,000"


def body(action: object = "members", **parameters: Any) -> bytes:
    parameters = {"mixpanel_cohort_id": "7", "mixpanel_cohort_name": "vips", **parameters}
    return json.dumps({"action": action, "parameters": parameters}).encode()


def parse(action: str = "members", **parameters: Any) -> CohortUpdate:
    return CohortUpdate.parse(body(action, **parameters))


def paged(page: object, pages: object, session: object = "s") -> bytes:
    return body(mixpanel_session_id=session, page_info={"page_count": page, "total_pages": pages})


def test_parse_understands_the_body_that_mixpanel_documents() -> None:
    document = {
        "action": "members",
        "parameters": {
            "mixpanel_project_id": "<mixpanel project id>",
            "mixpanel_cohort_name": "<cohort name in mixpanel>",
            "mixpanel_cohort_id": "<cohort id in mixpanel>",
            "mixpanel_cohort_description": "<cohort description in mixpanel>",
            "mixpanel_session_id": "<mixpanel session id for tracking>",
            "page_info": {"total_pages": 10, "page_count": 6},
            "members": [
                {
                    "email": "email1@email.com",
                    "mixpanel_distinct_id": "distinct_id_1",
                    "first_name": "John",
                    "last_name": "Doe",
                },
                {"mixpanel_distinct_id": "distinct_id_2", "phone_number": "+1-541-754-3010"},
            ],
        },
    }
    expected = CohortUpdate(
        "members",
        "<cohort id in mixpanel>",
        "<cohort name in mixpanel>",
        "<mixpanel session id for tracking>",
        6,
        10,
        ("distinct_id_1", "distinct_id_2"),
    )
    assert CohortUpdate.parse(json.dumps(document).encode()) == expected
    assert CohortUpdate.parse(document) == expected


@pytest.mark.parametrize("action", ["add_members", "remove_members"])
def test_difference_may_have_a_cohort_id_and_nothing_else(action: str) -> None:
    update = CohortUpdate.parse({"action": action, "parameters": {"mixpanel_cohort_id": "7"}})
    assert update == CohortUpdate(action, "7", "7", "", 1, 1, (), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cohort_id", "text"),
    [
        ("7", "7"),
        (7, "7"),
        (0, "0"),
        (-7, "-7"),
        (" 7\n", "7"),
        ("x" * 100, "x" * 100),
        (f" {'x' * 100} ", "x" * 100),
    ],
)
def test_ids_are_text_or_numbers(cohort_id: object, text: str) -> None:
    update = parse(mixpanel_cohort_id=cohort_id, mixpanel_session_id=cohort_id)
    assert (update.cohort_id, update.session_id) == (text, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [("VIPs ✨", "VIPs ✨"), (" VIPs ", "VIPs"), (2026, "2026"), ("x" * 2000, "x" * 2000)],
)
def test_cohort_name_is_text_or_a_number(name: object, text: str) -> None:
    assert parse(mixpanel_cohort_name=name).cohort_name == text


@pytest.mark.parametrize("name", [None, "", " ", [], True, 1.5, "x" * 2001, "\ud800", "nul\0"])
def test_cohort_without_a_usable_name_is_called_by_its_id(name: object) -> None:
    assert parse(mixpanel_cohort_name=name).cohort_name == "7"


@pytest.mark.parametrize(
    ("page", "pages", "numbers"),
    [
        (6, 10, (6, 10)),
        ("6", "10", (6, 10)),
        (" 6 ", "\t010\n", (6, 10)),
        (1, 1, (1, 1)),
        (10, 10, (10, 10)),
        (1, 10**9, (1, 10**9)),
    ],
)
def test_page_numbers_are_whole_numbers_or_their_digits(
    page: object, pages: object, numbers: tuple[int, int]
) -> None:
    update = CohortUpdate.parse(paged(page, pages))
    assert (update.page, update.pages) == numbers


@pytest.mark.parametrize("parameters", [{}, {"page_info": None}])
def test_body_without_page_info_is_one_page(parameters: dict[str, Any]) -> None:
    update = parse(**parameters)
    assert (update.page, update.pages) == (1, 1)


def test_single_page_needs_no_session() -> None:
    assert CohortUpdate.parse(paged(1, 1, None)).session_id == ""


@pytest.mark.parametrize("action", ["add_members", "remove_members"])
@pytest.mark.parametrize(
    "page_info", [{"page_count": 1, "total_pages": 2}, {"page_count": 0, "total_pages": 0}, {}, "none"]
)
def test_page_info_of_a_difference_is_ignored(action: str, page_info: object) -> None:
    update = parse(action, page_info=page_info, members=[{"mixpanel_distinct_id": "ann"}])
    assert (update.session_id, update.page, update.pages, update.members) == ("", 1, 1, ("ann",))


@pytest.mark.parametrize("parameters", [{}, {"members": None}, {"members": []}])
@pytest.mark.parametrize("action", ["add_members", "remove_members"])
def test_difference_may_have_no_members(action: str, parameters: dict[str, Any]) -> None:
    update = parse(action, **parameters)
    assert (update.members, update.skipped) == ((), 0)


def test_empty_list_of_members_differs_from_a_missing_one() -> None:
    without = [parse("members", **parameters) for parameters in ({}, {"members": None})]
    assert [(update.members, update.skipped) for update in without] == [((), 1)] * 2
    assert parse("members", members=[]).skipped == 0


@pytest.mark.parametrize(
    ("identifier", "member"),
    [
        ("ann", "ann"),
        (" ann\r\n", "ann"),
        ("ann lee", "ann lee"),
        (42, "42"),
        (0, "0"),
        (2**70, f"{2**70}"),
        ("日本語", "日本語"),
        ("\U0001f600", "\U0001f600"),
        ("x" * 2000, "x" * 2000),
        ("\U0001f600" * 2000, "\U0001f600" * 2000),
        (f" {'x' * 2000} ", "x" * 2000),
        ("null", "null"),
    ],
)
def test_member_is_text_or_a_number(identifier: object, member: str) -> None:
    update = parse(members=[{"mixpanel_distinct_id": identifier}])
    assert (update.members, update.skipped) == ((member,), 0)


@pytest.mark.parametrize(
    "member",
    [
        {},
        {"email": "ann@example.com"},
        {"MIXPANEL_DISTINCT_ID": "ann"},
        *(
            {"mixpanel_distinct_id": value}
            for value in (
                None,
                1.0,
                1e300,
                float("nan"),
                True,
                False,
                {"id": "ann"},
                ["ann"],
                "",
                " \t\r\n\u3000",
                "x" * 2001,
                "x" * 5000,
                "a\0b",
                "\0",
                "\ud800",
                "ann\udfff",
            )
        ),
        "ann",
        7,
        None,
        True,
        ["mixpanel_distinct_id", "ann"],
    ],
    ids=lambda member: f"{member!a:.50}",
)
def test_member_without_a_usable_identifier_is_skipped_alone(member: object) -> None:
    update = parse(members=[{"mixpanel_distinct_id": "ann"}, member, {"mixpanel_distinct_id": "bob"}])
    assert (update.members, update.skipped) == (("ann", "bob"), 1)


@pytest.mark.parametrize(
    ("member", "cause"),
    [
        ("ann", "it is not an object"),
        ({}, "mixpanel_distinct_id is missing (choose it under Properties to Export in Mixpanel)"),
        ({"mixpanel_distinct_id": 1.5}, "mixpanel_distinct_id is neither text nor a whole number"),
        ({"mixpanel_distinct_id": True}, "mixpanel_distinct_id is neither text nor a whole number"),
        ({"mixpanel_distinct_id": " "}, "mixpanel_distinct_id is empty"),
        ({"mixpanel_distinct_id": "x" * 2001}, "mixpanel_distinct_id is longer than 2,000 characters"),
        ({"mixpanel_distinct_id": "a\0"}, "mixpanel_distinct_id has a NUL character"),
        ({"mixpanel_distinct_id": "\ud800"}, "mixpanel_distinct_id is not valid Unicode"),
    ],
    ids=lambda value: f"{value!a:.40}",
)
def test_member_that_is_left_out_has_a_cause(member: object, cause: str) -> None:
    update = parse(members=[member, {"mixpanel_distinct_id": "ann"}, member])
    assert (update.left_out, update.skipped) == ({cause: 2}, 2)


def test_members_are_there_once_in_the_order_of_first_sight() -> None:
    update = parse(
        members=[{"mixpanel_distinct_id": identifier} for identifier in ["bob", "7", "ann", " bob", 7]]
    )
    assert (update.members, update.skipped) == (("bob", "7", "ann"), 0)


def test_further_properties_of_members_are_ignored() -> None:
    member = {"mixpanel_distinct_id": "ann", "age": 7, "tags": [{}], "ok": None, "x": float("inf")}
    assert parse(members=[member], further=[1], page_size="many") == parse(
        members=[{"mixpanel_distinct_id": "ann"}]
    )


def test_member_key_names_another_property_as_the_identifier() -> None:
    members = [
        {"email": "ann@example.com", "mixpanel_distinct_id": "1"},
        {"mixpanel_distinct_id": "2"},
        {"email": None, "mixpanel_distinct_id": "3"},
    ]
    update = CohortUpdate.parse(body(members=members), "email")
    assert (update.members, update.skipped) == (("ann@example.com",), 2)


def test_byte_order_mark_is_no_error() -> None:
    assert CohortUpdate.parse(b"\xef\xbb\xbf" + body()) == parse()


ACTION = "action must be one of members, add_members, remove_members"
UNREADABLE = {
    "the body is not JSON": [b"", b" ", b"{", b"{}{}", b"members", b"{'a': 1}", b'{"a": ' + b"1" * 5000 + b"}"],
    "the body is not UTF-8": [
        b"\xff",
        body(members=["é"]).replace(b"\\u00e9", b"\xe9"),
        '{"é": 1}'.encode("utf-16"),
    ],
    "the body is nested too deeply": [b"[" * DEEP + b"]" * DEEP, b'{"":' * DEEP + b"1" + b"}" * DEEP],
    "the body must be a JSON object": [b"[]", b"[" + body() + b"]", b'"members"', b"1", b"null", b"NaN"],
    ACTION: [
        b"{}",
        b'{"action": NaN}',
        *map(body, [None, "", "Members", "members ", "delete", 1, True, [], {}]),
    ],
    "parameters must be an object": [
        b'{"action": "members"}',
        b'{"action": "members", "parameters": null}',
        b'{"action": "members", "parameters": []}',
    ],
}
NO_TEXT: list[object] = [True, 7.5, float("nan"), [], {}, "a\0b", "\ud800"]
NO_NUMBERS: list[object] = [
    0,
    "0",
    "",
    -1,
    "-1",
    "+1",
    1.0,
    "1.0",
    1.5,
    float("inf"),
    "one",
    "\uff11",
    True,
    None,
    [],
]
NO_NUMBERS += [{}, 10**9 + 1, f"{10**10}", 10**30, "\x1c1", "0" * 5000 + "1"]
NO_OBJECTS: list[object] = [[], [1, 1], "1/1", 1, False]
NO_LISTS: list[object] = [{}, {"0": {}}, "ann", "", 0, False]
WRONG = {
    "mixpanel_cohort_id is missing": [
        b'{"action": "members", "parameters": {}}',
        *(body(mixpanel_cohort_id=value) for value in (None, "", " ")),
    ],
    **{
        f"{name} must be text or a number": [body(**{name: value}) for value in NO_TEXT]
        for name in ("mixpanel_cohort_id", "mixpanel_session_id")
    },
    "mixpanel_cohort_id must have at most 100 characters": [
        body(mixpanel_cohort_id="x" * 101),
        body(mixpanel_cohort_id=10**100),
    ],
    "mixpanel_session_id must have at most 100 characters": [body(mixpanel_session_id="x" * 101)],
    "page_info must be an object": [body(page_info=value) for value in NO_OBJECTS],
    f"page_count {WHOLE}": [body(page_info={}), *(paged(value, 10) for value in NO_NUMBERS)],
    f"total_pages {WHOLE}": [body(page_info={"page_count": 1}), *(paged(1, value) for value in NO_NUMBERS)],
    "page_count must not be above total_pages": [paged(2, 1), paged("11", 10)],
    "mixpanel_session_id is missing: nothing tells which pages belong together": [
        paged(1, 2, session) for session in (None, "", " ")
    ],
    "members must be a list": [body(action, members=value) for action in ACTIONS for value in NO_LISTS],
}


@pytest.mark.parametrize(
    ("refused", "message"),
    [(refused, message) for message, bodies in {**UNREADABLE, **WRONG}.items() for refused in bodies],
    ids=lambda value: f"{value!a:.60}",
)
def test_body_that_cannot_be_understood_is_a_value_error_that_says_why(refused: bytes, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        CohortUpdate.parse(refused)
    assert (type(raised.value), f"{raised.value}") == (ValueError, message)


texts = st.text(st.characters(exclude_categories=()), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["\0", " ", "x" * 2001]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
numbers = st.integers(1, 3) | st.integers(1, 3).map(str)
members = st.lists(
    st.fixed_dictionaries({"mixpanel_distinct_id": texts | st.integers(0, 9)}) | values, max_size=6
)
parameters = st.fixed_dictionaries(
    {"mixpanel_cohort_id": st.just("7") | values, "members": members | values},
    optional={
        "mixpanel_cohort_name": texts | values,
        "mixpanel_session_id": texts | values,
        "page_info": st.fixed_dictionaries({"page_count": numbers | values, "total_pages": numbers | values})
        | values,
    },
)
documents = st.fixed_dictionaries(
    {"action": st.sampled_from(ACTIONS) | values, "parameters": parameters | values}
)


@given(st.binary() | (documents | values).map(json.dumps).map(str.encode) | documents)
@example(paged("\x1c1", 1))
@example(paged("0" * 5000 + "1", 1))
def test_parse_returns_clean_text_or_raises_value_error_whatever_comes(given: bytes | dict[str, Any]) -> None:
    try:
        update = CohortUpdate.parse(given)
    except ValueError:
        return
    assert update.action in ACTIONS
    assert 1 <= update.page <= update.pages
    assert len({*update.members}) == len(update.members)
    for text in (update.cohort_id, update.cohort_name, *update.members):
        assert 1 <= len(text) <= 2000
        assert text == text.strip()
        assert "\0" not in text
        assert text.encode().decode() == text
