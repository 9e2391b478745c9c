"""Whatever happens, a Redis server and the reference say the same."""

import time
from itertools import count

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from flagsync._outbox.backend import Backend
from flagsync._outbox.options import StoreBounds
from tests.outbox.test_model import AnyBackend
from tests.support.redis import backend_at, move_clock
from tests.support.reference_backend import ReferenceBackend
from tests.support.valkey import ValkeyServer

NUMBERS = count()
# The lease of the reference does not end by time.
BOUNDS = StoreBounds(max_pending=4, prune_seconds=-1.0, prune_rows=2, lease_seconds=1e9)


class AnyRedisBackend(AnyBackend):
    """Processes that share a namespace and, beside it, a store of the reference."""

    def __init__(self, url: str) -> None:
        self.url, self.namespace = url, f"model {next(NUMBERS)}"
        self.began = time.time()
        super().__init__()

    def pair(self) -> tuple[Backend, ReferenceBackend]:
        return backend_at(self.url, self.namespace, BOUNDS), ReferenceBackend(self.store_beside)

    # The server's clock goes on between two calls, so that no step may end where a message is just forgotten.
    @rule(seconds=st.sampled_from([100.0, 200.0, 400.0, -100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        move_clock(self.patch, self.now - self.began)


def test_redis_says_what_the_reference_says(valkey: ValkeyServer) -> None:
    some = settings(
        max_examples=20,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: AnyRedisBackend(valkey.url), settings=some)  # type: ignore[arg-type]
