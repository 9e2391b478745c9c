"""The body of a call of Mixpanel's cohort webhook -> CohortUpdate; pure.

Guarantee: what is returned can be stored as it is; a body that cannot be understood raises a ``ValueError`` that says
why. A member that cannot be a Flagsmith identity is left out and counted, and does not affect the others. Boundary:
does not know which pages came before. Source: https://docs.mixpanel.com/docs/cohort-sync/webhooks
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from flagsync._identifiers import text_of

Action: TypeAlias = Literal["members", "add_members", "remove_members"]
ACTIONS: tuple[Action, ...] = get_args(Action)
MEMBER_KEY = "mixpanel_distinct_id"
MAX_IDENTIFIER = 2000  # Flagsmith's limit, in characters
MAX_ID, MAX_PAGES = 100, 10**9


@dataclass(frozen=True, slots=True)
class CohortUpdate:
    """One call of the webhook.

    Attributes:
        action: ``"members"`` is a page of the whole cohort; the others are differences.
        cohort_id: Mixpanel's id of the cohort; it never changes.
        cohort_name: The cohort's name, which can be edited in Mixpanel.
        session_id: The same for all pages of one whole cohort; empty if Mixpanel sent none.
        page: The number of the page, from 1 to ``pages``. Pages come in any order.
        pages: How many pages make the whole cohort.
        members: Flagsmith identifiers, each once.
        skipped: How many other members came, without a usable identifier; 1 if a whole cohort came without a list of
            members.
        left_out: Why they are left out -> how many.
    """

    action: Action
    cohort_id: str
    cohort_name: str
    session_id: str = ""
    page: int = 1
    pages: int = 1
    members: tuple[str, ...] = ()
    skipped: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict, compare=False)

    @classmethod
    def parse(cls, body: bytes | Mapping[str, Any], member_key: str = MEMBER_KEY) -> "CohortUpdate":
        """Read a call of the webhook.

        Args:
            body: The body of the request, or the JSON object in it.
            member_key: The exported property that is the Flagsmith identifier.

        Raises:
            ValueError: The body cannot be understood, and no retry would change that.
        """
        document = read_json(body) if isinstance(body, bytes) else body
        action, parameters = document.get("action"), document.get("parameters")
        if action not in ACTIONS:
            raise ValueError(f"action must be one of {', '.join(ACTIONS)}")
        if not isinstance(parameters, dict):
            raise ValueError("parameters must be an object")  # noqa: TRY004 - one kind of error for a body
        cohort_id = _text(parameters, "mixpanel_cohort_id")
        if not cohort_id:
            raise ValueError("mixpanel_cohort_id is missing")
        session_id = _text(parameters, "mixpanel_session_id")
        page, pages = _paging(parameters.get("page_info")) if action == "members" else (1, 1)
        if pages > 1 and not session_id:
            raise ValueError("mixpanel_session_id is missing: nothing tells which pages belong together")
        members = parameters.get("members")
        if not isinstance(members, list | None):
            raise ValueError("members must be a list")  # noqa: TRY004
        identifiers = [_identifier(member, member_key) for member in members or ()]
        usable = tuple(dict.fromkeys(found for found in identifiers if isinstance(found, str)))
        left_out = Counter(found.cause for found in identifiers if not isinstance(found, str))
        if action == "members" and members is None:
            left_out["a whole cohort came without a list of members"] += 1
        name = _identifier(parameters, "mixpanel_cohort_name")  # only for display: no reason to refuse
        name = name if isinstance(name, str) else cohort_id
        return cls(action, cohort_id, name, session_id, page, pages, usable, left_out.total(), dict(left_out))


class _Unusable(NamedTuple):
    """Why a member is left out."""

    cause: str


def read_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body holds; ``ValueError`` if it holds none."""
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    except RecursionError:
        raise ValueError("the body is nested too deeply") from None
    except ValueError:
        raise ValueError("the body is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("the body must be a JSON object")  # noqa: TRY004
    return document


def _text(parameters: Mapping[str, Any], name: str) -> str:
    """Return a text, or a number as text; empty if there is none."""
    value = parameters.get(name)
    if value is not None and (type(value) not in (str, int) or not is_storable(f"{value}")):
        raise ValueError(f"{name} must be text or a number")
    text = "" if value is None else f"{value}".strip()
    if len(text) > MAX_ID:
        raise ValueError(f"{name} must have at most {MAX_ID} characters")
    return text


def _paging(page_info: object) -> tuple[int, int]:
    """Return the number of the page and of all pages: 1 and 1 if the body does not say."""
    if page_info is None:
        return 1, 1
    if not isinstance(page_info, dict):
        raise ValueError("page_info must be an object")  # noqa: TRY004
    page, pages = (_number(page_info.get(name), name) for name in ("page_count", "total_pages"))
    if page > pages:
        raise ValueError("page_count must not be above total_pages")
    return page, pages


def _number(value: object, name: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,10}\s*", value, re.ASCII):
        value = int(value)
    if type(value) is not int or not 1 <= value <= MAX_PAGES:
        raise ValueError(f"{name} must be a whole number from 1 to {MAX_PAGES:,}")
    return value


def _identifier(member: object, key: str) -> str | _Unusable:
    """Return the identifier of a member, or why it has none that Flagsmith can hold."""
    if not isinstance(member, dict):
        return _Unusable("it is not an object")
    value = member.get(key)
    if value is None:
        return _Unusable(f"{key} is missing (choose it under Properties to Export in Mixpanel)")
    if type(value) not in (str, int):
        return _Unusable(f"{key} is neither text nor a whole number")
    identifier = text_of(value)
    if not identifier:
        return _Unusable(f"{key} is empty")
    if len(identifier) > MAX_IDENTIFIER:
        return _Unusable(f"{key} is longer than {MAX_IDENTIFIER:,} characters")
    if not is_storable(identifier):
        return _Unusable(f"{key} has a NUL character" if "\0" in identifier else f"{key} is not valid Unicode")
    return identifier


def is_storable(text: str) -> bool:
    """Return whether databases can hold a text: PostgreSQL refuses NUL, UTF-8 half a surrogate pair."""
    return re.search("[\0\ud800-\udfff]", text) is None
