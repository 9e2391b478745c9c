"""The asynchronous methods of a client.

Guarantee: none of them blocks the event loop, and a task that is cancelled does not wait. What only computes runs in
the loop: a local evaluation costs less than a thread does. Boundary: the evaluator knows which evaluations wait.
"""

from collections.abc import Callable
from math import inf
from typing import TypeVar

from flagsmith.models import DefaultFlag, Flag, Flags
from flagsmith.types import TraitMapping

from flagsync._call_threads import CallThreads
from flagsync._evaluator import Evaluator

T = TypeVar("T")
# As many connections as requests keeps to one host: a further thread would open one for a single request.
MAX_EVALUATING = 10


class AsyncCalls:
    """Evaluates, flushes and closes for tasks of an event loop.

    Args:
        evaluator: Evaluates; it may block.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self._evaluations = CallThreads(MAX_EVALUATING)
        # Evaluations that hang must not delay flush and close, which are few and have a timeout.
        self._waits = CallThreads(inf)

    async def identity_flags(self, identifier: str, traits: TraitMapping | None, *, transient: bool) -> Flags:
        """Evaluate the flags of an identity and mirror them: in the event loop, but for what may wait."""
        evaluator = self._evaluator

        def evaluate(merged: TraitMapping | None) -> Flags:
            return evaluator.identity_flags(identifier, merged, transient=transient)

        if evaluator.may_wait():
            return await self._evaluations.run(lambda: evaluate(evaluator.merge(identifier, traits)))
        if evaluator.must_ask_store(identifier):
            merged = await self._evaluations.run(lambda: evaluator.merge(identifier, traits))
        else:
            merged = evaluator.merge(identifier, traits, may_ask=False)
        return evaluate(merged)

    async def experiment_flag(
        self, feature_name: str, identifier: str, traits: TraitMapping | None
    ) -> Flag | DefaultFlag:
        """Evaluate a flag, mirror the flags and record the exposure."""
        flags = await self.identity_flags(identifier, traits, transient=False)
        # Not in the thread: who was cancelled meanwhile, such as by a timeout, does not serve what the flag says.
        return self._evaluator.met_flag(flags, feature_name, identifier, traits, may_wait=False)

    async def wait(self, function: Callable[[], T]) -> T:
        """Return what a function returns that waits for the pipeline. It goes on if the task is cancelled."""
        return await self._waits.run(function)
