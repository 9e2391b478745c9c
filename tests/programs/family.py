"""Children of multiprocessing, one for each name or in a pool of two."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext


def run(kind: str, context: BaseContext, evaluate: Callable[[str], None], names: list[str]) -> bool:
    """Evaluate each name in a child of the kind; whether a child has failed."""
    if kind == "executor":
        with ProcessPoolExecutor(2, mp_context=context) as executor:
            list(executor.map(evaluate, names))
        return False
    if kind == "pool":
        with context.Pool(2) as pool:
            pool.map(evaluate, names)
            pool.close()
            pool.join()
        return False
    processes = [context.Process(target=evaluate, args=(name,)) for name in names]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return any(process.exitcode for process in processes)
