"""A loopback Flagsmith that evaluates for remote clients, and answers when a test lets it."""

import json
import threading
from typing import Any

from flagsmith import Flagsmith
from flagsmith.mappers import map_context_and_identity_data_to_context, map_environment_document_to_context
from flagsmith.models import Flag, Flags

from flagsync.testing import Request
from tests.support.flagsmith_server import KEY, FlagsmithServer


class EvaluatingFlagsmith(FlagsmithServer):
    """Evaluates its document for identities, and shows its flags to anybody.

    Args:
        document: The environment document.

    Attributes:
        may_answer: Clear it, and requests wait until it is set.
        most_at_once: The greatest number of evaluations at the same time so far.
    """

    def __init__(self, document: Any) -> None:
        super().__init__()
        self.document = document
        self._context = map_environment_document_to_context(document)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._counting = threading.Lock()
        self._at_once = self.most_at_once = 0

    def close(self) -> None:
        self.may_answer.set()
        super().close()

    def _answer(self, request: Request) -> tuple[int, bytes]:
        if (request.method, request.path) == ("GET", "/api/v1/flags/"):
            return 200, json.dumps(self.document["feature_states"]).encode()
        if (request.method, request.path) != ("POST", "/api/v1/identities/"):
            return super()._answer(request)
        self._count(1)
        self.may_answer.wait()
        self._count(-1)
        identity = json.loads(request.body)
        context = map_context_and_identity_data_to_context(
            context=self._context,
            identifier=identity["identifier"],
            traits={trait["trait_key"]: trait["trait_value"] for trait in identity["traits"]},
        )
        flags = Flags.from_evaluation_context(context, {}, None, None)
        return 200, json.dumps(
            {"flags": [as_answered(flag) for flag in flags.all_flags()], "traits": []}
        ).encode()

    def _count(self, change: int) -> None:
        with self._counting:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)


class Polling(Flagsmith):
    """A client with local evaluation that has fetched its document, and does so again only if it is told to."""

    def __init__(self, server: EvaluatingFlagsmith) -> None:
        self._updates = threading.Semaphore(0)
        super().__init__(
            KEY,
            api_url=server.api_url,
            enable_local_evaluation=True,
            environment_refresh_interval_seconds=3600.0,
        )
        for _ in range(2):  # in the constructor, and at the start of the thread
            assert self._updates.acquire(timeout=10)

    def update_environment(self) -> None:
        super().update_environment()
        self._updates.release()

    def close(self) -> None:
        self.environment_data_polling_manager_thread.stop()
        self.environment_data_polling_manager_thread.join()


def as_answered(flag: Flag) -> dict[str, Any]:
    """Return a flag as the API answers it."""
    feature = {"id": flag.feature_id, "name": flag.feature_name}
    return {
        "feature": feature,
        "enabled": flag.enabled,
        "feature_state_value": flag.value,
        "variant": flag.variant,
    }
