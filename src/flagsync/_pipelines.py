"""Makes the pipeline of a client in each process, and warns once of processes in which it cannot work well.

Guarantee: the pipeline of a client stops when the client is garbage-collected.
"""

import weakref

from flagsmith import Flagsmith

from flagsync._clock import monotonic
from flagsync._messages import NO_THREADS, STALE, refresher
from flagsync._options import Options
from flagsync._outbox.place import check_unused, note_user
from flagsync._pipeline import Pipeline
from flagsync._process import EXIT_SECONDS, PerProcess, threads_run


def pipelines_of(client: object, flagsmith: Flagsmith, options: Options) -> PerProcess[Pipeline] | None:
    """Return the pipelines of a client; None without a token. A forked child gets its own, empty one.

    That of this process begins to send what waits in a shared store.

    Raises:
        ValueError: Another client uses the backend.
    """
    token = options.token
    if token is None:
        return None
    check_unused(options.outbox)
    built_with, reference = refresher(flagsmith), weakref.ref(client)

    def make(inherited: Pipeline | None) -> Pipeline:
        pipeline = Pipeline(options, token)
        if inherited is not None and inherited.is_closed:
            pipeline.stop(monotonic() + EXIT_SECONDS)
        return pipeline

    def on_first(pipeline: Pipeline, inherited: Pipeline | None) -> None:
        if (owner := reference()) is not None:  # else it is being collected, in the child of a fork
            weakref.finalize(owner, _stop, pipeline).atexit = False
        if not threads_run():
            pipeline.report.warn_once(NO_THREADS)
        thread = refresher(flagsmith)
        if thread and (not thread.is_alive() or (inherited and thread is built_with)):
            pipeline.report.warn_once(STALE)

    pipelines = PerProcess(make, on_first)
    note_user(options.outbox, pipelines.get())
    pipelines.get().resume()
    return pipelines


def _stop(pipeline: Pipeline) -> None:
    """Stop the pipeline of a client that is garbage-collected.

    The garbage collector may call this in any thread, also in the pipeline's own, while it holds any lock. So it
    takes no lock and waits for nothing.
    """
    pipeline.stop(monotonic() + EXIT_SECONDS)
