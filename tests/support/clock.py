"""A clock that stands still until a test moves it."""


class Clock:
    """Takes the place of a function that returns the time.

    Attributes:
        now: What it returns, in seconds.
    """

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
