"""Evaluates, and again in two children of the kind that the arguments name."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from shared import client

NAMES = "child_0", "child_1"


def evaluate(identifier: str) -> None:
    client.get_identity_flags(identifier)


def fork(identifier: str) -> int:
    if not (child := os.fork()):
        evaluate(identifier)
        sys.exit()
    return child


if __name__ == "__main__":
    evaluate("parent")
    kind, *method = sys.argv[1:]
    context = multiprocessing.get_context(*method)
    if kind == "fork":
        children = [fork(name) for name in NAMES]
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    elif kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(evaluate, NAMES))
    else:
        processes = [context.Process(target=evaluate, args=(name,)) for name in NAMES]  # type: ignore[attr-defined]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        sys.exit(any(process.exitcode for process in processes))
