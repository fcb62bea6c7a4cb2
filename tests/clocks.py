"""A clock for tests in which time passes only when they say so."""


class ManualClock:
    """A clock that only the test advances.

    :param now: the time in Unix seconds
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time in Unix seconds."""
        return self.now
