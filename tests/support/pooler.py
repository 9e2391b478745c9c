"""What stands between clients and a PostgreSQL server, and keeps nothing between two transactions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


class Pooler:
    """As pgbouncer in transaction mode: each transaction may have another session, which keeps nothing."""

    def __init__(self, url: str, sessions: int = 3) -> None:
        self._sessions = [psycopg.connect(url, prepare_threshold=0) for _ in range(sessions)]

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        session = self._sessions.pop(0)
        try:
            yield session
        finally:
            if not session.closed:
                assert session.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
                session.autocommit = True
                kept = session.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False)
                assert kept.fetchall() == [(0,)]
                session.execute("DISCARD ALL", prepare=False)
                session.autocommit = False
            self._sessions.append(session)

    def close(self) -> None:
        for session in self._sessions:
            session.close()
