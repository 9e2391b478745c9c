"""A printed table, and figures as a person reads them."""

from collections.abc import Sequence

WIDTHS = (37, 32, 24, 22, 0)
OURS = "flagsync, max_pending 50,000"


def show(what: str, side: str, figure: str, target: str = "", verdict: str = "") -> None:
    """Print a line."""
    cells = zip((what, side, figure, target, verdict), WIDTHS, strict=True)
    print("  ".join(cell.ljust(width) for cell, width in cells).rstrip(), flush=True)


def judge(detail: str, *, reached: bool) -> str:
    """Verdict, such as ``2.4 x, ok``."""
    return f"{detail}, {'ok' if reached else 'MISSED'}"


def percentile(nanoseconds: Sequence[int], percent: int) -> float:
    """Microseconds that so many per cent of the values do not exceed."""
    return sorted(nanoseconds)[len(nanoseconds) * percent // 100] / 1000


def spread(nanoseconds: Sequence[int]) -> str:
    """Median and 99th percentile."""
    return f"{percentile(nanoseconds, 50):,.2f} µs, p99 {percentile(nanoseconds, 99):,.2f}"
