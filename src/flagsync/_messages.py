"""Warnings about how an application uses its client, and the checks behind them."""

from threading import Thread

from flagsmith import Flagsmith
from flagsmith.exceptions import FlagsmithAPIError

NO_FLAGS = "mirror() takes the Flags that get_identity_flags() of a Flagsmith client returns, not {}"
STALE = (
    "The Flagsmith client was built before this process was forked, and the thread that refreshes its flags is "
    "not in this process: they are stale from now on. Build Flagsmith and FlagSync after the fork (gunicorn: "
    "post_fork, or no --preload; Celery: worker_process_init; uWSGI: postfork)"
)
NO_THREADS = (
    "uWSGI runs no threads between requests, so updates are not sent until the worker ends: set enable-threads = true "
    "in its configuration, or start it with --enable-threads"
)
CHECK_KEY_AND_URL = (
    "check the environment key and api_url of the Flagsmith client (401 and 403: the key; 404: the URL; 5xx: the "
    "server)"
)
NO_ANSWER = "Flagsmith's API answered get_identity_flags() with HTTP status {}: " + CHECK_KEY_AND_URL
UNPICKLABLE = (
    "FlagSync cannot be pickled or copied, since its threads and connections belong to one process: build one in "
    "each process, such as in the initializer of a pool, or where a worker first needs it"
)


def no_answer(error: FlagsmithAPIError) -> str | None:
    """Return a warning with the HTTP status, which Flagsmith's exception does not mention (flagsmith 6.3)."""
    status = status_of(error)
    return None if status is None else NO_ANSWER.format(status)


def status_of(error: FlagsmithAPIError) -> int | None:
    """Return the HTTP status behind an exception of Flagsmith; None if there was no answer (flagsmith 6.3)."""
    status: int | None = getattr(getattr(error.__cause__, "response", None), "status_code", None)
    return status


def refresher(flagsmith: Flagsmith) -> Thread | None:
    """Return the thread that keeps a client's environment fresh, if it has one (flagsmith 6.3)."""
    names = ("environment_data_polling_manager_thread", "event_stream_thread")
    return next((thread for name in names if (thread := getattr(flagsmith, name, None))), None)
