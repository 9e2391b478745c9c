"""What odd objects, callbacks, collections and locks do to a client: nothing beyond their own update."""

import gc
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flags

from flagsync import DeliveryError, FlagSync, Stats, outbox_stats
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._files import lease
from flagsync._options import Tuning
from flagsync._outbox import change, sqlite
from flagsync._outbox.options import Staging
from flagsync.testing import MixpanelServer

Build = Callable[..., FlagSync]
LONG = 60.0
CALLS = 160  # of SQLite: more than a client makes until its update is delivered
SQLITE = (sqlite3.Connection, sqlite3.Cursor)


class Impatient(FlagSync):
    """A client that retries at once."""

    _tuning = Tuning(sending=Sending(backoff=Backoff(first_seconds=0.0, max_seconds=0.0)))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of a file, as another program may."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


class OddIdentifier:
    def __init__(self, raised: type[BaseException]) -> None:
        self._raised = raised

    def __hash__(self) -> int:
        raise self._raised


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, LookupError])
def test_encoder_survives_an_identifier_whose_hash_raises(
    raised: type[BaseException], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync()
    flags = client.get_identity_flags("before")
    assert client.flush()
    client.mirror(OddIdentifier(raised), flags)  # type: ignore[arg-type]
    client.get_identity_flags("after")
    assert client.flush()
    assert [*mixpanel.profiles] == ["before", "after"]
    assert client.stats() == Stats(accepted=2, delivered=2, skipped=1, requests=2)


class Untouchable:
    """Raises whatever attribute is asked for."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Exiting(Untouchable):
    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class OddFlags(Flags):
    """Flags that cannot be asked whether they are complete."""

    @property
    def _context(self) -> Any:
        raise SystemExit

    @_context.setter
    def _context(self, _: Any) -> None: ...


class Undecided:
    def __bool__(self) -> bool:
        raise LookupError


class UndecidedFlags(Flags):
    _context: Any = property(lambda _: Undecided(), lambda *_: None)


@pytest.mark.parametrize(
    "make",
    [Untouchable, Exiting, OddFlags, UndecidedFlags, lambda: None, lambda: {"a": True}, object, lambda: Flags],
    ids=["untouchable", "exiting", "odd", "undecided", "None", "dict", "object", "class"],
)
def test_mirror_never_raises(make: Callable[[], Any], flagsync: Build, mixpanel: MixpanelServer) -> None:
    client = flagsync()
    client.mirror("odd", make())
    client.get_identity_flags("user_1")
    assert client.flush()
    assert [*mixpanel.profiles] == ["user_1"]
    stats = client.stats()
    assert (stats.delivered, stats.skipped + stats.rejected, stats.pending) == (1, 1, 0)


def test_sender_survives_an_on_error_that_interrupts(offline: Flagsmith, mixpanel: MixpanelServer) -> None:
    def interrupt(_: DeliveryError) -> None:
        raise KeyboardInterrupt

    mixpanel.fail(status=503, times=1)
    with Impatient(offline, "token", mixpanel_url=mixpanel.url, on_error=interrupt) as client:
        client.get_identity_flags("user_1")
        assert client.flush()
        assert [*mixpanel.profiles] == ["user_1"]


def test_application_thread_is_not_taken_for_the_clients_own_by_its_name(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(when_full="wait", max_pending=1)

    def evaluate() -> None:
        for number in range(3):
            client.get_identity_flags(f"user_{number}")
            pending.append(client.stats().pending)

    pending = list[int]()
    thread = threading.Thread(target=evaluate, name="flagsync-sender")
    thread.start()
    thread.join()
    assert pending == [0, 0, 0]


def test_callback_in_an_own_thread_does_not_wait_for_it(flagsync: Build, mixpanel: MixpanelServer) -> None:
    flushed = list[bool]()

    def distinct_id(identifier: str) -> str:
        flushed.append(client.flush(LONG))
        return identifier

    client: FlagSync = flagsync(distinct_id=distinct_id)
    client.get_identity_flags("user_1")
    assert client.flush()
    assert flushed == [False]


def test_flush_stats_and_close_keep_their_timeout_while_the_file_is_locked(
    offline: Flagsmith, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    class Patient(FlagSync):
        """A client whose threads wait for the file until it is unlocked."""

        _tuning = Tuning(staging=Staging(busy_seconds=10 * LONG))

    path, done = tmp_path / "outbox.db", threading.Event()
    client = Patient(offline, "token", mixpanel_url=mixpanel.url, outbox=path, flush_interval_seconds=0.01)
    client.get_identity_flags("user_1")
    assert client.flush()

    def use() -> None:
        client.get_identity_flags("user_2")
        flushed = client.flush(0.1)
        pending = client.stats().pending
        closed = client.close(0.1)
        if (flushed, pending, closed) == (False, 1, False):
            done.set()

    with locked(path):
        thread = threading.Thread(target=use)
        thread.start()
        assert done.wait(LONG)  # before the file is unlocked
    thread.join()


def test_close_counts_each_call_once_while_the_file_is_locked(flagsync: Build, tmp_path: Path) -> None:
    path, errors = tmp_path / "outbox.db", list[DeliveryError]()
    client = flagsync(outbox=path, flush_interval_seconds=0.01, on_error=errors.append)
    client.get_identity_flags("user_1")
    assert client.flush()
    with locked(path):
        client.get_identity_flags("user_2")
        assert not client.close(0.1)
    for thread in threading.enumerate():
        if thread.name in ("flagsync-encoder", "flagsync-sender"):
            thread.join(LONG)
    stats = client.stats()
    assert stats.accepted == 2
    assert min(stats.pending, stats.dropped) >= 0
    assert stats.delivered + stats.pending + stats.dropped == 2


def test_client_collected_in_its_own_threads_delivers_and_ends(
    offline: Flagsmith, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    """The collector may run at any call; here it does at each of the first calls of SQLite, in their thread."""
    at, numbers, dropped, collected = 0, count(), threading.Event(), threading.Event()

    def profile(_: Any, event: str, function: Any) -> None:
        is_call = event == "c_call" and isinstance(getattr(function, "__self__", None), SQLITE)
        if is_call and dropped.is_set() and next(numbers) == at:
            gc.collect()
            collected.set()

    def distinct_id(identifier: str) -> str:
        dropped.wait(LONG)  # so that the encoder's calls come when nobody has the client any more
        return identifier

    gc.disable()
    gc.freeze()  # the collections need not look at what was there before
    threading.setprofile(profile)
    try:
        for at in range(CALLS):
            before, numbers = {*threading.enumerate()}, count()
            dropped.clear()
            collected.clear()
            client: Any = FlagSync(
                offline,
                "token",
                mixpanel_url=mixpanel.url,
                outbox=tmp_path / f"{at}.db",
                distinct_id=distinct_id,
                flush_interval_seconds=0.01,  # the sender looks into the file as often, which makes calls
            )
            client.itself = client  # a reference cycle, which only the collector ends
            client.get_identity_flags(f"user_{at}")
            del client
            dropped.set()
            assert collected.wait(LONG)
            for thread in {*threading.enumerate()} - before:
                if thread.name.startswith(("flagsync-encoder", "flagsync-sender")):
                    thread.join(LONG)
                    assert not thread.is_alive()
    finally:
        threading.setprofile(None)
        gc.unfreeze()
        gc.enable()
    assert {*mixpanel.profiles} == {f"user_{number}" for number in range(CALLS)}


def test_password_in_mixpanel_url_is_never_shown(
    flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]], tmp_path: Path
) -> None:
    logging.getLogger("flagsync").setLevel(logging.DEBUG)
    errors, told = list[Exception](), threading.Event()

    def on_error(error: DeliveryError) -> None:
        errors.append(error)
        told.set()

    mixpanel.fail(status=401)
    url = mixpanel.url.replace("http://", "http://user:correct-horse@")
    client = flagsync(
        mixpanel_url=url, on_error=on_error, outbox=tmp_path / "outbox.db", flush_interval_seconds=0.01
    )
    client.get_identity_flags("user_1")
    assert not client.flush(0.0)
    assert told.wait(LONG)
    with pytest.raises(ValueError, match="mixpanel_url") as raised:
        flagsync(mixpanel_url=f"{url}?x=1")
    shown = [*logged(), *map(repr, errors), repr(raised.value), repr(client), *map(repr, vars(client).values())]
    shown.append(repr(client._options.destination("token")))
    assert errors
    assert not [text for text in shown if "correct-horse" in text]


def run(program: str, *arguments: str) -> str:
    """Run a program in a fresh interpreter, where it succeeds; return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=LONG
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_import_of_flagsync_does_not_import_sqlite() -> None:
    program = "import sys; from flagsync import FlagSync; print({'sqlite3', '_sqlite3'} & {*sys.modules})"
    assert run(program) == "set()\n"


def test_client_without_an_outbox_needs_no_sqlite(mixpanel: MixpanelServer) -> None:
    program = """
import sys
sys.modules["sqlite3"] = sys.modules["_sqlite3"] = None
import flagsync, flagsync.cohorts
from flagsmith.models import Flag, Flags
with flagsync.FlagSync("key", "token", mixpanel_url=sys.argv[1]) as client:
    client.mirror("user_1", Flags({"f": Flag(enabled=True, value=7, feature_id=1, feature_name="f")}))
try:
    flagsync.FlagSync("key", "token", outbox="outbox.db")
except ImportError as error:
    print(error.name)
"""
    assert run(program, mixpanel.url) == "sqlite3\n"
    assert mixpanel.profiles == {"user_1": {"f": 7}}


def test_newer_evaluation_wins_though_the_wall_clock_was_put_back(
    flagsync: Build, mixpanel: MixpanelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    older, newer = (flagsync(outbox=path, flush_interval_seconds=60) for _ in range(2))
    mixpanel.fail(status=503)  # so that the older one is still in the file when the newer one comes
    older.get_identity_flags("user_1", {"plan": "free"})
    while outbox_stats(path).pending == 0:
        pass
    now = time.time
    for module in (time, change, sqlite, lease):
        monkeypatch.setattr(module, "time", lambda: now() - 3600)
    newer.get_identity_flags("user_1", {"plan": "premium"})
    while outbox_stats(path).accepted < 2:
        pass
    mixpanel.recover()
    assert newer.close()
    assert older.close()  # one of them has sent for both
    assert mixpanel.profiles["user_1"]["seg_override"] == "gold"
    assert outbox_stats(path) == Stats(accepted=2, delivered=1, superseded=1)
