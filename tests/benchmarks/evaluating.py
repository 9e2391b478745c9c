"""What a call costs under local evaluation, of which it is evaluating: processor time of all threads, delivered."""

import json
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any, NamedTuple

from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync._encoding.division import divide
from flagsync._encoding.document import digest_of
from tests.benchmarks.inputs import IDENTITIES, environment_client, properties_of
from tests.benchmarks.server import Server
from tests.benchmarks.table import judge, show
from tests.support.encoding import nothing

USERS, ROUNDS = 1000, 5
NEW_MOST = 0.6
PLANS = ("free", "pro", "gold", "trial")


class Environment(NamedTuple):
    """How many features have neither variants nor overrides, how many have variants, and how many an override."""

    constant: int
    multivariate: int
    overridden: int

    def __str__(self) -> str:
        return f"{self.constant} flags the same, {self.multivariate} split, {self.overridden} in segments"


TYPICAL, HARD = Environment(180, 10, 10), Environment(395, 100, 5)


def evaluate(server: Server) -> None:
    """New users and users who come again, with an outbox in memory and in a file."""
    for environment in (TYPICAL, HARD):
        _evaluate(server, environment)


def _evaluate(server: Server, environment: Environment) -> None:
    bare, what = environment_client(*environment), str(environment)
    context: Any = bare.get_identity_flags("user")._context
    document = divide(context, digest_of(context, nothing), nothing)
    show(what, "evaluated once a document", f"{len(document.constant)} flags")
    naive = _cost(lambda round_: [json.dumps(properties_of(_ask(bare, round_, n))) for n in range(USERS)])
    show("  processor time", "all_flags() and json.dumps", f"{naive:.0f} µs a call")
    with TemporaryDirectory() as folder:
        for side, outbox, again_most in (("memory", None, 0.02), ("file", f"{folder}/outbox.db", 0.06)):
            with FlagSync(
                bare, "token", mixpanel_url=server.url, outbox=outbox, flush_interval_seconds=0.1
            ) as ours:
                new = _cost(lambda round_, ours=ours: _mirror(ours, round_))  # type: ignore[misc]
                again = _cost(lambda _, ours=ours: _mirror(ours, ROUNDS))  # type: ignore[misc]
            for kind, cost, limit in (("changes", new, NEW_MOST), ("changes nothing", again, again_most)):
                verdict = judge(f"{cost / naive:.3f} x", reached=cost <= limit * naive)
                show(f"  {kind}", f"flagsync, {side}", f"{cost:.1f} µs a call", f"at most {limit} x", verdict)
    counts = server.counts()
    lost = 2 * (ROUNDS + 1) * USERS - counts.updates
    show(
        "  delivered",
        "flagsync",
        f"{counts.updates:,}",
        "each change once",
        judge(f"{lost} lost", reached=not lost),
    )


def _mirror(client: FlagSync, round_: int) -> None:
    for number in range(USERS):
        _ask(client, round_, number)
    assert client.flush(60)


def _ask(client: Flagsmith | FlagSync, round_: int, number: int) -> Any:
    traits: Any = {"plan": PLANS[(number + round_) % 4], "age": number % 90, "round": round_}
    return client.get_identity_flags(IDENTITIES[number + USERS * round_], traits)


def _cost(work: Callable[[int], object]) -> float:
    """Microseconds of processor time a call: the median of the rounds after the first, which warms up."""
    costs = []
    for round_ in range(ROUNDS + 1):
        began = process_time()
        work(round_)
        costs.append((process_time() - began) / USERS * 1e6)
    return median(costs[1:])
