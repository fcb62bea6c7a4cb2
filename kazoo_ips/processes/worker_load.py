"""How many connections each worker of one gunicorn holds, for the others to see.

Whoever is awake first takes all connections that come at once, and clients keep theirs: one worker
had all eight of a load test, and the other nothing to do. Standard library only.
"""

import mmap

_PLACES = 256
_NOBODY = 2**32 - 1


class WorkerLoad:
    """The numbers, in memory that processes forked from this one have in common."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 4 * _PLACES)).cast("I")
        for place in range(_PLACES):
            self.leave(place)

    def note(self, place: int, connections: int) -> None:
        """Say how many the worker at a place holds."""
        if place < _PLACES:
            self._numbers[place] = connections

    def leave(self, place: int) -> None:
        """Say that there is no worker at a place."""
        self.note(place, _NOBODY)

    def least(self) -> int:
        """How many the worker holds that holds the fewest."""
        return min(self._numbers)


load = WorkerLoad()
"""One for each gunicorn; made before its workers are."""
