"""A line of the table, and figures as a person reads them."""

from typing import NamedTuple


class Row(NamedTuple):
    """What was measured, of which side, how much, how much it should be, and whether it is."""

    what: str
    side: str
    figure: str
    target: str = ""
    verdict: str = ""


HEAD = Row("what", "side", "figure", "target", "verdict")


def verdict(*, reached: bool, detail: str = "") -> str:
    """Detail and judgement, such as ``2.4 x, ok``."""
    return ", ".join(filter(None, (detail, "ok" if reached else "MISSED")))


def percentile(values: list[int], percent: float) -> float:
    """Microseconds below which so many per cent of the values, in nanoseconds, lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))] / 1000
