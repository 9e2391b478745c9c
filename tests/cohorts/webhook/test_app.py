"""The webhook: what each call is answered, and what is stored by then.

Most tests call the application as a server would, once as WSGI and once as ASGI; the last ones go through real servers
and frameworks.
"""

import sqlite3
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, count, repeat
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.validate import validator

import pytest
import requests
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from flagsync.cohorts import CohortUpdate, CohortWebhook, SQLiteStore
from flagsync.cohorts.sqlite.store import StoreLimits
from flagsync.cohorts.webhook.app import read_body
from flagsync.cohorts.webhook.refusals import INCOMPLETE as BROKEN_OFF
from flagsync.cohorts.webhook.refusals import BodyLimits
from tests.support.webhook_calls import (
    ANN,
    CHUNK,
    HEADERS,
    INCOMPLETE,
    INTERFACES,
    MAX_BYTES,
    PASSWORD,
    TOO_LARGE,
    UNAVAILABLE,
    USER,
    Answer,
    Reply,
    Stream,
    basic,
    call,
    failure,
    over_wsgi,
    success,
)

Post = Callable[..., Reply]
Logged = Callable[[], list[str]]


def never() -> Iterator[bytes]:
    pytest.fail("the body was read")
    yield b""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "cohorts.db") as opened:
        yield opened


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[SQLiteStore]:
    """A store that does not wait for other processes."""
    with SQLiteStore(tmp_path / "cohorts.db", limits=StoreLimits(busy_seconds=0.01)) as opened:
        yield opened


@pytest.fixture
def webhook(store: SQLiteStore) -> CohortWebhook:
    return CohortWebhook(store, credentials=[(USER, PASSWORD)])


@pytest.fixture(params=INTERFACES)
def post(request: pytest.FixtureRequest, webhook: CohortWebhook) -> Post:
    """Calls the application as a server would; a header that is empty is not sent."""

    def send(
        body: bytes | Iterable[bytes] = ANN, to: CohortWebhook = webhook, method: str = "POST", **headers: str
    ) -> Reply:
        given = {"authorization": basic(), "content_type": "application/json"}
        if isinstance(body, bytes):
            given["content_length"] = str(len(body))
            body = [body[start : start + CHUNK] for start in range(0, len(body), CHUNK)]
        named = {name.replace("_", "-"): value for name, value in {**given, **headers}.items() if value}
        [reply] = INTERFACES[request.param](to, method, named, body)
        return reply

    return send


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def replaced_by_a_directory(path: Path) -> Iterator[None]:
    aside = path.rename(path.with_name("aside"))
    path.mkdir()
    yield
    path.rmdir()
    aside.rename(path)


# Success


@pytest.mark.parametrize(
    ("body", "action", "members"),
    [
        (call("add_members", "bob", "ann", 7), "add_members", ["7", "ann", "bob", "old"]),
        (call("remove_members", "old", "nobody"), "remove_members", []),
        (call("members", "ann"), "members", ["ann"]),
        (call("add_members"), "add_members", ["old"]),
        (call("remove_members"), "remove_members", ["old"]),
        (call("members"), "members", []),
    ],
)
def test_call_that_is_stored_is_a_success(
    post: Post, store: SQLiteStore, body: bytes, action: str, members: list[str]
) -> None:
    post(call("add_members", "old"))
    assert post(body).answer == success(action)
    assert [*store.members("7")] == members


def test_wsgi_answers_success_when_others_can_see_the_change(tmp_path: Path, webhook: CohortWebhook) -> None:
    seen: list[str] = []
    with SQLiteStore(tmp_path / "cohorts.db") as other:
        environ = {"REQUEST_METHOD": "POST", "HTTP_AUTHORIZATION": basic(), "CONTENT_LENGTH": str(len(ANN))}
        environ["wsgi.input"] = Stream([ANN])  # type: ignore[assignment]
        webhook.wsgi(environ, lambda *_: seen.extend(other.members("7")))
    assert seen == ["ann"]


def test_response_has_a_content_type_and_a_length(post: Post) -> None:
    reply = post()
    headers = {name.lower(): value for name, value in reply.headers}
    assert headers == {"content-type": "application/json", "content-length": str(len(reply.body))}


def test_body_may_come_in_parts_and_without_its_length(post: Post, store: SQLiteStore) -> None:
    assert post(iter([ANN[:1], ANN[1:20], ANN[20:]])).answer == success()
    assert [*store.members("7")] == ["ann"]


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json; charset=utf-8", "Application/JSON ", "application/cloudevents+json", ";"],
)
def test_content_type_may_be_json_or_missing(post: Post, content_type: str) -> None:
    assert post(content_type=content_type).answer == success()


def test_member_key_names_another_property_as_the_identifier(post: Post, store: SQLiteStore) -> None:
    webhook = CohortWebhook(store, credentials=None, member_key="email")
    body = call(members=[{"mixpanel_distinct_id": "1", "email": "ann@example.com"}])
    assert post(body, webhook).answer == success()
    assert [*store.members("7")] == ["ann@example.com"]


def test_page_may_have_100_000_members(post: Post, store: SQLiteStore) -> None:
    assert post(call("members", *range(100_000))).answer == success("members")
    assert sum(1 for _ in store.members("7")) == 100_000


@pytest.mark.parametrize("length", [{}, {"content_length": ""}], ids=["known", "unknown"])
def test_body_may_have_as_many_bytes_as_the_limit_says(post: Post, length: dict[str, str]) -> None:
    assert post(ANN.ljust(MAX_BYTES), **length).answer == success()
    assert post(ANN.ljust(MAX_BYTES + 1), **length).answer == failure(*TOO_LARGE)


def test_session_that_changes_its_number_of_pages_is_a_success_and_logged(
    post: Post, store: SQLiteStore, logged: Logged
) -> None:
    post(call("add_members", "old"))
    for page, pages, member in ((1, 2, "ann"), (2, 3, "bob"), (3, 3, "eve")):
        page_info = {"page_count": page, "total_pages": pages}
        body = call("members", member, mixpanel_session_id="s", page_info=page_info)
        assert post(body).answer == success("members")
    assert [*store.members("7")] == ["ann", "bob", "eve", "old"]
    assert logged() == [
        "Pages of a cohort contradict each other: its session starts over, and nobody leaves before it is complete"
    ]


def test_members_that_are_left_out_are_a_success_and_counted_in_the_log(
    post: Post, store: SQLiteStore, logged: Logged
) -> None:
    assert post(call("add_members", "ann", None, "x" * 5000, None, " ")).answer == success()
    assert [*store.members("7")] == ["ann"]
    message = (
        "Members of a cohort are left out: 2 because mixpanel_distinct_id is missing (choose it under Properties to "
        "Export in Mixpanel); 1 because mixpanel_distinct_id is longer than 2,000 characters; 1 because "
        "mixpanel_distinct_id is empty"
    )
    assert logged() == [message]


def test_whole_cohort_that_comes_without_members_is_logged(post: Post, logged: Logged) -> None:
    assert post(call("members", members=None)).answer == success("members")
    cause = "1 because a whole cohort came without a list of members"
    assert logged() == [f"Members of a cohort are left out: {cause}"]


# Credentials


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic ",
        basic(password="other"),
        basic(password=""),
        basic(password=PASSWORD + "x"),
        basic(user="other"),
        basic(user=""),
        basic(user=USER.upper()),
        basic().replace("Basic", "Bearer"),
        basic().replace("Basic ", "Basic:"),
        basic().removeprefix("Basic "),
        basic() + "=",
        f"{basic()}, {basic()}",
        f"Basic {USER}:{PASSWORD}",
        "Basic ***",
        "Basic \xe9",
        "Basic " + b64encode(f"{USER}:{PASSWORD}".encode("latin-1")).decode(),
        "Basic " + b64encode(f"{USER}{PASSWORD}".encode()).decode(),
    ],
)
def test_wrong_credentials_are_refused_before_anything_is_read(
    post: Post, store: SQLiteStore, authorization: str
) -> None:
    reply = post(never(), authorization=authorization)
    assert reply.answer == failure(401, "user or password is wrong")
    challenge = [value for name, value in reply.headers if name.lower() == "www-authenticate"]
    assert challenge == ['Basic realm="flagsync", charset="UTF-8"']
    assert [*store.cohorts()] == []


def test_wrong_credentials_are_refused_without_telling_anything_else(post: Post) -> None:
    reply = post(never(), method="GET", content_type="text/plain", authorization="")
    assert reply.answer == failure(401, "user or password is wrong")


def test_missing_credentials_are_logged_with_another_remedy_than_wrong_ones(post: Post, logged: Logged) -> None:
    for authorization in ("", basic(password="guess")):
        post(authorization=authorization)
    missing, wrong = logged()
    assert "has no Authorization header" in missing
    assert "WSGIPassAuthorization On" in missing
    assert "Compare the user and password of the connection in Mixpanel" in wrong


# Refusals


@pytest.mark.parametrize(
    ("request_of", "body", "remedy"),
    [
        ({"authorization": ""}, ANN, "HTTP 401: it has no Authorization header. Fill in user and password"),
        ({"authorization": basic(password="x")}, ANN, "HTTP 401: user or password in its Authorization header"),
        ({"authorization": "Bearer x"}, ANN, "or the header does not use Mixpanel's scheme, which is Basic"),
        ({"method": "GET"}, ANN, "HTTP 405: its method is not POST. If Mixpanel called, a redirect"),
        ({"content_type": "text/html"}, ANN, "HTTP 415: its content type is not application/json"),
        ({"content_length": "many"}, ANN, "HTTP 400: its Content-Length is not a number"),
        ({"content_length": "50000000"}, ANN, "HTTP 413: the body must not have more than 32,000,000 bytes"),
        ({}, b"{", "HTTP 400: the body is not JSON. Mixpanel pauses the sync"),
        ({"content_length": "1000"}, ANN, "HTTP 503: its body was cut off or took too long"),
        ({"content_length": "1000"}, b"", "HTTP 503: none of its body arrived"),
        (
            {"content_length": ""},
            b"",
            "a middleware has already read the body: mount the webhook in front of it",
        ),
    ],
    ids=lambda value: f"{value!a:.30}",
)
def test_refusal_is_logged_once_with_its_remedy(
    post: Post, logged: Logged, request_of: dict[str, str], body: bytes, remedy: str
) -> None:
    for _ in range(2):
        assert post(body, **request_of).status >= 400
    [record] = logged()
    assert record.startswith("A call of the cohort webhook was refused with HTTP ")
    assert remedy in record
    assert record.endswith(". Further such calls are not logged")


def test_refusal_of_a_call_without_length_names_servers_that_tell_its_end(
    webhook: CohortWebhook, logged: Logged
) -> None:
    over_wsgi(webhook, "POST", {"authorization": basic()}, never(), **{"wsgi.input_terminated": False})
    [record] = logged()
    assert "HTTP 411: it has no Content-Length" in record
    assert "proxy_request_buffering on" in record


def test_refusals_of_different_causes_are_each_logged(post: Post, logged: Logged) -> None:
    for body in (b"{", b"[]", b"{", b"{}"):
        post(body)
    assert len(logged()) == 3


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "Basic "])
def test_authorization_scheme_may_be_written_in_any_case(post: Post, scheme: str) -> None:
    assert post(authorization=basic().replace("Basic", scheme)).answer == success()


def test_credentials_may_be_several_pairs(post: Post, store: SQLiteStore) -> None:
    pairs = [("old", "one"), ("new", "two"), ("new", "日本語")]
    webhook = CohortWebhook(store, credentials=iter(pairs))
    assert [post(to=webhook, authorization=basic(*pair)).status for pair in pairs] == [200, 200, 200]
    assert post(to=webhook, authorization=basic("old", "two")).status == 401


def test_credentials_none_accepts_every_call(post: Post, store: SQLiteStore) -> None:
    webhook = CohortWebhook(store, credentials=None)
    assert [post(to=webhook, authorization=given).status for given in ("", basic(), "Bearer x")] == [200] * 3


@pytest.mark.parametrize(
    "credentials",
    [
        [],
        iter(()),
        "",
        "ab",
        (USER, PASSWORD),
        [USER, PASSWORD],
        [(USER,)],
        [(USER, PASSWORD, "more")],
        [(USER, "")],
        [("", PASSWORD)],
        [(USER, None)],
        [(USER, PASSWORD.encode())],
        [("mix:panel", PASSWORD)],
        [(USER, PASSWORD), ("other", "")],
        {USER: PASSWORD},
        5,
        [(USER, "\ud800")],
    ],
)
def test_invalid_credentials_are_an_error_that_does_not_show_them(store: SQLiteStore, credentials: Any) -> None:
    with pytest.raises(ValueError) as raised:
        CohortWebhook(store, credentials=credentials)
    assert f"{raised.value}" == (
        "credentials must be the (user, password) pairs that Mixpanel may use, users without a colon; "
        "or None, given explicitly, to accept every call"
    )


def test_missing_credentials_are_an_error(store: SQLiteStore) -> None:
    with pytest.raises(ValueError, match=r"^credentials must be .* None, given explicitly"):
        CohortWebhook(store)


@pytest.mark.parametrize("member_key", ["", None, 7])
def test_member_key_must_be_the_name_of_a_property(store: SQLiteStore, member_key: Any) -> None:
    with pytest.raises(ValueError, match=r"^member_key must be the name of a property, not "):
        CohortWebhook(store, credentials=None, member_key=member_key)


# Bad input


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "post"])
def test_other_methods_than_post_are_not_allowed(post: Post, method: str) -> None:
    reply = post(never(), method=method)
    assert reply.answer == failure(405, "the method must be POST")
    assert [value for name, value in reply.headers if name.lower() == "allow"] == ["POST"]


@pytest.mark.parametrize(
    "content_type", ["text/html", "application/x-www-form-urlencoded", "application/jsonp"]
)
def test_content_type_other_than_json_is_refused_before_the_body_is_read(post: Post, content_type: str) -> None:
    reply = post(never(), content_type=content_type)
    assert reply.answer == failure(415, "the content type must be application/json")


@pytest.mark.parametrize("content_length", ["many", "-1", "+1", "1.5", "1_0", "0x1", " ", "\xb2"])
def test_content_length_that_is_no_number_is_refused(post: Post, content_length: str) -> None:
    reply = post(never(), content_length=content_length)
    assert reply.answer == failure(400, "Content-Length must be a number")


@pytest.mark.parametrize("content_length", ["32000001", "50000000", "9" * 5000])
def test_content_length_above_the_limit_is_refused_before_the_body_is_read(
    post: Post, content_length: str
) -> None:
    assert post(never(), content_length=content_length).answer == failure(*TOO_LARGE)


def test_body_of_unknown_length_is_read_up_to_the_limit(post: Post) -> None:
    limited = chain(repeat(b" " * CHUNK, MAX_BYTES // CHUNK + 1), never())
    assert post(limited).answer == failure(*TOO_LARGE)


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", ("the body is not JSON", None)),
        (b"{", ("the body is not JSON", None)),
        (ANN[:-1] + b"\xff}", ("the body is not UTF-8", None)),
        (b"[" * 100_000, ("the body is nested too deeply", None)),
        (b"[" + ANN + b"]", ("the body must be a JSON object", None)),
        (call("delete", "ann"), ("action must be one of members, add_members, remove_members", "delete")),
        (call("x" * 101, "ann"), ("action must be one of members, add_members, remove_members", "x" * 100)),
        (call(["members"]), ("action must be one of members, add_members, remove_members", None)),
        (b'{"action": "members"}', ("parameters must be an object", "members")),
        (call(mixpanel_cohort_id=None), ("mixpanel_cohort_id is missing", "add_members")),
        (
            call("members", page_info={"page_count": 0, "total_pages": 1}),
            ("page_count must be a whole number from 1 to 1,000,000,000", "members"),
        ),
        (
            call("members", page_info={"page_count": 1, "total_pages": "all"}),
            ("total_pages must be a whole number from 1 to 1,000,000,000", "members"),
        ),
        (
            call("members", page_info={"page_count": 2, "total_pages": 1}),
            ("page_count must not be above total_pages", "members"),
        ),
        (
            call("members", page_info={"page_count": 1, "total_pages": 2}),
            ("mixpanel_session_id is missing: nothing tells which pages belong together", "members"),
        ),
        (call("remove_members", members={"id": "ann"}), ("members must be a list", "remove_members")),
    ],
    ids=lambda value: f"{value!a:.40}",
)
def test_body_that_no_retry_can_change_is_a_bad_request(
    post: Post, store: SQLiteStore, logged: Logged, body: bytes, refusal: tuple[str, str | None]
) -> None:
    message, action = refusal
    assert post(body).answer == failure(400, message, action)
    [record] = logged()
    assert record.startswith(f"A call of the cohort webhook was refused with HTTP 400: {message}. ")
    assert [*store.cohorts()] == []


def test_log_tells_neither_users_nor_passwords(store: SQLiteStore, post: Post, logged: Logged) -> None:
    secret = "s3cret"
    webhook = CohortWebhook(store, credentials=[("mixpanel", secret)])
    post(authorization=basic("mixpanel", f"not-{secret}"), to=webhook)
    for body in (
        call("add_members", secret, f"{secret}\0", 7.5),
        call(secret, secret),
        call("add_members", members={"mixpanel_distinct_id": secret}),
        call("members", secret, page_info={"page_count": secret}),
        call("add_members", secret)[:-1],
    ):
        post(body, webhook, authorization=basic("mixpanel", secret))
    assert len(logged()) == 6
    assert [message for message in logged() if secret in message] == []


# An unavailable store


@pytest.mark.parametrize("unavailable", [locked, replaced_by_a_directory])
def test_call_that_cannot_be_stored_now_is_stored_when_it_is_repeated(
    post: Post, impatient: SQLiteStore, tmp_path: Path, unavailable: Any
) -> None:
    webhook = CohortWebhook(impatient, credentials=None)
    with unavailable(tmp_path / "cohorts.db"):
        assert post(to=webhook).answer == failure(*UNAVAILABLE, "add_members")
    assert [*impatient.cohorts()] == []
    assert post(to=webhook).answer == success()
    assert [*impatient.members("7")] == ["ann"]


def test_call_that_cannot_be_stored_is_logged_with_the_reason(
    post: Post, impatient: SQLiteStore, tmp_path: Path, logged: Logged
) -> None:
    with locked(tmp_path / "cohorts.db"):
        post(to=CohortWebhook(impatient, credentials=None))
    message = (
        "Calls of the cohort webhook cannot be stored, and Mixpanel will repeat them: "
        "The file of cohorts cannot be used (another process keeps the file locked)"
    )
    assert logged() == [message]


def test_outage_of_the_store_is_logged_once_when_it_begins_and_once_when_it_ends(
    post: Post, impatient: SQLiteStore, tmp_path: Path, logged: Logged
) -> None:
    webhook = CohortWebhook(impatient, credentials=None)
    with locked(tmp_path / "cohorts.db"):
        post(to=webhook)
        post(to=webhook)
    post(to=webhook)
    post(to=webhook)
    began, ended = logged()
    assert began.startswith("Calls of the cohort webhook cannot be stored")
    assert ended == "Calls of the cohort webhook are stored again"


def test_store_that_raises_is_unavailable_and_its_error_is_logged_by_type_only(
    post: Post, tmp_path: Path, logged: Logged
) -> None:
    with SQLiteStore(tmp_path / "other.db", takes=lambda _, name: {"others": True}[name]) as store:
        webhook = CohortWebhook(store, credentials=None)
        assert post(to=webhook).answer == failure(*UNAVAILABLE, "add_members")
    assert logged() == ["Calls of the cohort webhook cannot be stored, and Mixpanel will repeat them: KeyError"]


# Incomplete bodies


def gone() -> Iterator[bytes]:
    yield ANN[:20]
    raise OSError("the client has gone")


def closed() -> Iterator[bytes]:
    yield from ()
    raise ValueError("I/O operation on closed file")


@pytest.mark.parametrize(
    "chunks", [lambda: [ANN], list, gone, closed], ids=["short", "empty", "an error", "closed"]
)
def test_wsgi_body_that_ends_early_is_not_stored(
    webhook: CohortWebhook, store: SQLiteStore, chunks: Callable[[], Iterable[bytes]]
) -> None:
    headers = {"authorization": basic(), "content-length": str(len(ANN) + 1)}
    [reply] = over_wsgi(webhook, "POST", headers, chunks())
    assert reply.answer == failure(*INCOMPLETE)
    assert [*store.cohorts()] == []


def test_wsgi_body_of_unknown_length_that_breaks_off_is_not_stored(
    webhook: CohortWebhook, store: SQLiteStore
) -> None:
    [reply] = over_wsgi(webhook, "POST", {"authorization": basic()}, gone())
    assert reply.answer == failure(*INCOMPLETE)
    assert [*store.cohorts()] == []


def test_wsgi_body_may_be_followed_by_another_request(webhook: CohortWebhook, store: SQLiteStore) -> None:
    headers = {"authorization": basic(), "content-length": str(len(ANN))}
    [reply] = over_wsgi(webhook, "POST", headers, [ANN + b"POST / HTTP/1.1"])
    assert reply.answer == success()


@pytest.mark.parametrize("environ", [{}, {"CONTENT_LENGTH": ""}])
def test_wsgi_body_needs_a_length_where_the_server_does_not_tell_its_end(
    webhook: CohortWebhook, environ: dict[str, str]
) -> None:
    [reply] = over_wsgi(
        webhook, "POST", {"authorization": basic()}, never(), **{**environ, "wsgi.input_terminated": False}
    )
    assert reply.answer == failure(411, "Content-Length is missing")


@pytest.mark.parametrize("length", ["", str(len(ANN))], ids=["unknown", "known"])
def test_wsgi_body_that_comes_too_slowly_is_incomplete(length: str) -> None:
    environ = {"wsgi.input": Stream(bytes([byte]) for byte in ANN), "wsgi.input_terminated": True}
    assert read_body(environ, length, BodyLimits(), clock=count(0.0, 10.0).__next__) is BROKEN_OFF


# Roles


class Sink:
    """A store that does nothing but store."""

    def __init__(self) -> None:
        self.updates: list[CohortUpdate] = []

    def apply(self, update: CohortUpdate) -> None:
        self.updates.append(update)


def test_webhook_needs_no_more_of_a_store_than_apply(post: Post) -> None:
    store = Sink()
    assert post(to=CohortWebhook(store, credentials=None)).answer == success()
    assert [update.members for update in store.updates] == [("ann",)]


def test_webhook_refuses_a_store_that_cannot_be_written_to() -> None:
    accepted = r"^store must have apply\(update\), such as flagsync.cohorts.SQLiteStore"
    with pytest.raises(ValueError, match=f"{accepted}, not a value of type str$"):
        CohortWebhook("cohorts.db", credentials=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"{accepted}, not the class SQLiteStore: make an instance of it$"):
        CohortWebhook(SQLiteStore, credentials=None)  # type: ignore[arg-type]


# Servers and frameworks


class ThreadedServer(ThreadingMixIn, WSGIServer):
    """Answers each call in a thread of its own, and waits for them at its end."""


class QuietHandler(WSGIRequestHandler):
    """Keeps no access log."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(webhook: CohortWebhook) -> Iterator[str]:
    with make_server("127.0.0.1", 0, validator(webhook.wsgi), ThreadedServer, QuietHandler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def answer(response: Any) -> Answer:
    return response.status_code, response.json()


def test_wsgi_server_serves_the_webhook_alone(webhook: CohortWebhook, store: SQLiteStore) -> None:
    with served(webhook) as url, requests.Session() as client:
        client.headers.update(HEADERS)
        assert answer(client.post(url, ANN)) == success()
        assert answer(client.post(url, b"{")) == failure(400, "the body is not JSON")
        assert answer(client.get(url)) == failure(405, "the method must be POST")
    assert [*store.members("7")] == ["ann"]


def test_wsgi_server_may_pass_calls_at_the_same_time(webhook: CohortWebhook, store: SQLiteStore) -> None:
    def send(member: int) -> None:
        response = requests.post(url, call("add_members", member), headers=HEADERS, timeout=30)
        statuses.append(response.status_code)

    statuses: list[int] = []
    with served(webhook) as url:
        clients = [Thread(target=send, args=(member,)) for member in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert statuses == [200] * 8
    assert [*store.members("7")] == [*map(str, range(8))]


@pytest.mark.parametrize("path", ["/mixpanel", "/mixpanel/"])
def test_flask_mounts_the_webhook(webhook: CohortWebhook, store: SQLiteStore, path: str) -> None:
    app = Flask("app")
    app.add_url_rule("/", "home", lambda: "home")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/mixpanel": webhook.wsgi})  # type: ignore[method-assign]
    client = app.test_client()
    response = client.post(path, data=ANN, headers=HEADERS)
    assert (response.status_code, response.json) == success()
    assert [*store.members("7")] == ["ann"]
    assert client.get("/").text == "home"
