"""Evaluates in children of multiprocessing of the method and kind in the arguments, and while they import."""

import multiprocessing
import sys

from application import build
from family import run

client = build()


def evaluate(identifier: str) -> None:
    client.get_identity_flags(identifier)


if __name__ == "__mp_main__":  # spawned
    evaluate("import")
if __name__ == "__main__":
    client.get_identity_flags("parent")
    names = [f"child_{number}" for number in range(3)]
    sys.exit(run(sys.argv[2], multiprocessing.get_context(sys.argv[1]), evaluate, names))
