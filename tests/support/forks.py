"""Questions that a forked child answers."""

import os
import traceback
from collections.abc import Callable


def in_child(question: Callable[[], object], fork: Callable[[], int] = os.fork) -> bool:
    """Return the answer of a forked child; fail if it raises."""
    if (child := fork()) == 0:
        code = 2
        try:
            code = int(not question())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 1), f"the child ended with {code}"
    return code == 0
