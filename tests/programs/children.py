"""Evaluates, and again in two children of the kind that the arguments name."""

import multiprocessing
import os
import sys

from family import run
from shared import client

NAMES = ["child_0", "child_1"]


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
    if kind == "fork":
        children = [fork(name) for name in NAMES]
        sys.exit(any(os.waitpid(child, 0)[1] for child in children))
    sys.exit(run(kind, multiprocessing.get_context(*method), evaluate, NAMES))
