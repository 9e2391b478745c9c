"""The loopback Mixpanel, as users meet it in their own tests."""

import runpy
import subprocess
import sys
from typing import Any

import pytest
import requests

from flagsync import testing
from flagsync.testing import MixpanelServer


def update(distinct_id: str = "user_1", operation: str = "$set", what: Any = None) -> dict[str, Any]:
    return {"$token": "t", "$distinct_id": distinct_id, operation: {"a": 1} if what is None else what}


def post(server: MixpanelServer, updates: Any, **options: Any) -> requests.Response:
    options = {"params": {"verbose": "1"}, "timeout": 10, **options}
    return requests.post(f"{server.url}/engage", json=updates, **options)


def test_profiles_hold_what_accepted_updates_made_of_them(mixpanel_server: MixpanelServer) -> None:
    first = [update(what={"a": 1, "b": 2}), update("user_2", what={"a": True})]
    assert post(mixpanel_server, first).json() == {"status": 1, "error": None}
    post(mixpanel_server, [update(what={"a": 3}), update(operation="$unset", what=["b", "c"])])
    assert mixpanel_server.profiles == {"user_1": {"a": 3}, "user_2": {"a": True}}


@pytest.mark.parametrize(
    ("updates", "status", "error"),
    [
        ([update()] * 2001, 400, "data, at most 2000 updates"),
        ([], 400, "data, missing or empty"),
        ({"no": "list"}, 400, "data, missing or empty"),
        ([update(), {"$distinct_id": "x", "$set": {}}], 200, "$token, missing or empty"),
        ([update(), update("")], 200, "$distinct_id, missing or empty"),
        ([update(what={"a": "x" * 1_000_001})], 200, "update, more than 1 MB"),
        ([update(what=[1])], 200, "$set must be an object, $unset a list"),
        ([update(operation="$add")], 200, "no operation"),
        (["update"], 200, "data, must be objects"),
    ],
)
def test_invalid_batch_is_refused_as_a_whole(
    mixpanel_server: MixpanelServer, updates: Any, status: int, error: str
) -> None:
    response = post(mixpanel_server, updates)
    assert (response.status_code, response.json()) == (status, {"status": 0, "error": error})
    assert mixpanel_server.profiles == {}


def test_answer_without_verbose_is_a_digit(mixpanel_server: MixpanelServer) -> None:
    assert [post(mixpanel_server, body, params={}).text for body in ([update()], [update("")])] == ["1", "0"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/engage", b"", 405),
        ("POST", "/groups", b"[]", 404),
        ("POST", "/engage", b"x" * 10_000_001, 413),
    ],
)
def test_request_that_is_no_update_gets_an_http_error(
    mixpanel_server: MixpanelServer, method: str, path: str, body: bytes, status: int
) -> None:
    response = requests.request(method, mixpanel_server.url + path, data=body, timeout=10)
    assert response.status_code == status


def test_requests_hold_all_that_came(mixpanel_server: MixpanelServer) -> None:
    post(mixpanel_server, [update()], headers={"X-Mine": "yes"})
    assert mixpanel_server.wait_for_requests(1)
    [request] = mixpanel_server.requests
    assert (request.method, request.path, request.headers["X-Mine"]) == ("POST", "/engage?verbose=1", "yes")
    assert request.updates == [update()]


def test_faults_come_one_after_the_other(mixpanel_server: MixpanelServer) -> None:
    mixpanel_server.fail(times=2, status=503, body="down", headers={"Retry-After": "7"})
    mixpanel_server.fail(times=1, status=599)
    answers = [post(mixpanel_server, [update()]) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [503, 503, 599, 200]
    assert (answers[0].text, answers[0].headers["Retry-After"]) == ("down", "7")


def test_fault_can_concern_one_profile_until_recovery(mixpanel_server: MixpanelServer) -> None:
    mixpanel_server.fail(status=400, distinct_id="poison")
    assert post(mixpanel_server, [update()]).status_code == 200
    assert post(mixpanel_server, [update(), update("poison")]).status_code == 400
    mixpanel_server.recover()
    assert post(mixpanel_server, [update("poison")]).status_code == 200


def test_fault_can_change_the_body_alone(mixpanel_server: MixpanelServer) -> None:
    mixpanel_server.fail(times=1, body="<html>")
    response = post(mixpanel_server, [update()])
    assert (response.status_code, response.text) == (200, "<html>")


def test_dropped_connection_is_an_error_of_the_client(mixpanel_server: MixpanelServer) -> None:
    mixpanel_server.fail(times=1, drop=True)
    with pytest.raises(requests.ConnectionError):
        post(mixpanel_server, [update()])


def test_delay_ends_with_the_server() -> None:
    with MixpanelServer() as server:
        server.fail(delay_seconds=3600)
        with pytest.raises(requests.Timeout):
            post(server, [update()], timeout=0.05)
        assert server.wait_for_requests(1)


def test_wait_for_requests_ends_at_its_timeout(mixpanel_server: MixpanelServer) -> None:
    assert mixpanel_server.wait_for_requests(1, timeout_seconds=0.01) is False


def test_server_that_nobody_closes_keeps_no_process_alive() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"  # as where it is not installed
        "import requests; from flagsync.testing import MixpanelServer\n"
        "session = requests.Session(); server = MixpanelServer()\n"
        "print(session.post(server.url + '/engage', json=[], timeout=10).text)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")


def test_server_may_have_a_port_of_choice() -> None:
    with MixpanelServer() as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            MixpanelServer(port)
    with MixpanelServer(port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}"


def test_close_may_be_called_twice() -> None:
    with MixpanelServer() as server:
        server.close()


def test_testing_can_be_imported_without_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytest", None)
    monkeypatch.delitem(sys.modules, "flagsync.testing.fixtures")
    assert "mixpanel_server" not in runpy.run_path(testing.__file__)


def test_close_disconnects_clients() -> None:
    with requests.Session() as session:
        with MixpanelServer() as server:
            assert session.post(f"{server.url}/engage", json=[], timeout=10).status_code == 400
        with pytest.raises(requests.ConnectionError):
            session.post(f"{server.url}/engage", json=[], timeout=10)


@pytest.mark.parametrize(("error", "news"), [(ConnectionResetError(), False), (ValueError("news"), True)])
def test_server_says_nothing_of_clients_that_disconnect(
    error: Exception, news: bool, mixpanel_server: MixpanelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        raise error
    except Exception:
        mixpanel_server._server.handle_error(mixpanel_server._server.socket, ("127.0.0.1", 1))
    assert ("ValueError: news" in capsys.readouterr().err) is news
