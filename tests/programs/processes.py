"""Evaluates in children of multiprocessing, with the start method and the kind that the arguments name."""

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from application import build

client = build()


def evaluate(identifier: str) -> None:
    client.get_identity_flags(identifier)


if __name__ == "__main__":
    context, kind = multiprocessing.get_context(sys.argv[1]), sys.argv[2]
    client.get_identity_flags("parent")
    names = [f"child_{number}" for number in range(3)]
    if kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(evaluate, names))
    elif kind == "pool":
        with context.Pool(2) as pool:
            pool.map(evaluate, names)
            pool.close()
            pool.join()
    else:
        processes = [context.Process(target=evaluate, args=(name,)) for name in names]  # type: ignore[attr-defined]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        sys.exit(any(process.exitcode for process in processes))
