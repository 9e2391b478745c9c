"""The table of what the webhook answers, in README.md or docs/, row by row."""

import base64
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flagsync.cohorts import CohortUpdate, CohortWebhook, SQLiteStore, StoreUnavailableError

ROOT = Path(__file__).parents[3]
TEXT = "".join(path.read_text("utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")))
ROWS = re.findall(r"^\| (.+) \| (\d{3}) \| (.+) \|$", TEXT, re.MULTILINE)
ANN = {"mixpanel_distinct_id": "ann"}


def body(action: str = "add_members", **parameters: Any) -> bytes:
    known = {"mixpanel_cohort_id": "7", "mixpanel_cohort_name": "vips", "members": [ANN], **parameters}
    return json.dumps({"action": action, "parameters": known}).encode()


def page(count: object, total: object = 3, session: str = "s") -> bytes:
    info = {"page_count": count, "total_pages": total}
    return body("members", page_info=info, mixpanel_session_id=session)


CHUNKED = {"CONTENT_LENGTH": ""}
CUT = {"CONTENT_LENGTH": "1000"}
# The first column -> calls of that kind: their bodies, and what else of the request is unusual.
CALLS: dict[str, list[tuple[bytes, dict[str, Any]]]] = {
    "no credentials, or wrong ones": [
        (body(), {"HTTP_AUTHORIZATION": ""}),
        (body(), {"HTTP_AUTHORIZATION": f"Basic {base64.b64encode(b'mixpanel:guess').decode()}"}),
    ],
    "another method than POST": [(b"", {"REQUEST_METHOD": "GET"}), (body(), {"REQUEST_METHOD": "PUT"})],
    "another content type than JSON or plain text": [
        (body(), {"CONTENT_TYPE": "application/x-www-form-urlencoded"})
    ],
    "a body of 50 MB": [
        (b" " * 50_000_000, {}),
        (b" " * 50_000_000, {**CHUNKED, "wsgi.input_terminated": True}),
    ],
    "a body of unknown length, from a server that does not say where it ends": [(body(), CHUNKED)],
    "only a part of the body, or a body that takes more than 30 seconds (or the timeout of the server)": [
        (body(), CUT)
    ],
    "a `Content-Length` that is not a number": [(body(), {"CONTENT_LENGTH": "many"})],
    "invalid UTF-8": [(b'{"action": "caf\xe9"}', {})],
    "not JSON": [(b"", {}), (b"{", {}), (b"action=members", {})],
    "JSON that is nested 100,000 times": [(b"[" * 100_000, {})],
    "a JSON list": [(b"[%b]" % body(), {})],
    "an unknown action": [(body("delete_members"), {}), (b"{}", {})],
    "no cohort id": [(body(mixpanel_cohort_id=None), {}), (body(mixpanel_cohort_id=""), {})],
    "`page_count` 0, or not a number": [(page(0), {}), (page("one"), {}), (page(None), {})],
    "`page_count` above `total_pages`": [(page(4), {})],
    "several pages without a session": [(page(1, session=""), {})],
    "members that are not a list": [(body(members={"mixpanel_distinct_id": "ann"}), {})],
    "a member without an id, or with one of 5,000 characters": [
        (body(members=[{}, {"mixpanel_distinct_id": "x" * 5000}, ANN]), {})
    ],
    "100,000 members in a page": [
        (body(members=[{"mixpanel_distinct_id": f"{number}"} for number in range(100_000)]), {})
    ],
    "a whole cohort without a list of members": [(body("members", members=None), {})],
    "a session that changes its `total_pages`": [(page(1), {}), (page(2, total=4), {})],
    "anything, while the store is unavailable": [(body(mixpanel_cohort_id="unavailable"), {})],
}


class Store(SQLiteStore):
    """A store that is unavailable for one cohort."""

    def apply(self, update: CohortUpdate) -> None:
        if update.cohort_id == "unavailable":
            raise StoreUnavailableError
        super().apply(update)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Callable[..., tuple[int, dict[str, Any]]]]:
    with Store(tmp_path / "cohorts.db") as store:
        webhook = CohortWebhook(store, credentials=[("mixpanel", "secret")])

        def post(content: bytes, **unusual: Any) -> tuple[int, dict[str, Any]]:
            environ = {
                "REQUEST_METHOD": "POST",
                "HTTP_AUTHORIZATION": f"Basic {base64.b64encode(b'mixpanel:secret').decode()}",
                "CONTENT_TYPE": "application/json",
                "CONTENT_LENGTH": str(len(content)),
                "wsgi.input": io.BytesIO(content),
                **unusual,
            }
            statuses: list[str] = []
            [reply] = webhook.wsgi(environ, lambda status, _: statuses.append(status))
            return int(statuses[0].split()[0]), json.loads(reply)

        yield post


def test_answers_of_every_row_of_the_table_are_tried() -> None:
    assert [what for what, _, _ in ROWS] == [*CALLS]


@pytest.mark.parametrize(("what", "status", "message"), ROWS)
def test_answers_are_those_of_the_table(
    what: str, status: str, message: str, post: Callable[..., tuple[int, dict[str, Any]]]
) -> None:
    for content, unusual in CALLS[what]:
        code, reply = post(content, **unusual)
        assert code == int(status)
        if code == 200:
            assert reply == {"action": json.loads(content)["action"], "status": "success"}
        else:
            action = re.match(rb'{"action": "(\w+)", "parameters"', content) if code in (400, 503) else None
            echo = action[1].decode() if action and content.endswith(b"}") and not unusual else None
            error = {"message": message, "code": code}
            assert reply == {"action": echo, "status": "failure", "error": error}
