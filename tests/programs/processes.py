"""Evaluates in children of multiprocessing, with the start method and the kind that the arguments name."""

import multiprocessing
import sys

from application import build
from family import run

client = build()


def evaluate(identifier: str) -> None:
    client.get_identity_flags(identifier)


if __name__ == "__main__":
    client.get_identity_flags("parent")
    names = [f"child_{number}" for number in range(3)]
    sys.exit(run(sys.argv[2], multiprocessing.get_context(sys.argv[1]), evaluate, names))
