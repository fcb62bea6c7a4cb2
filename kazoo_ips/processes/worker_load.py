"""The number of connections of each worker of one gunicorn, shared by all its workers.

Without it, the worker that wakes up first accepts all connections that arrive at once, and has
them as long as the clients keep them open. In a load test one worker had all eight connections,
and the other was idle. Standard library only.
"""

import mmap

_SLOTS = 256
_NO_WORKER = 2**32 - 1


class WorkerLoad:
    """Numbers of connections, in memory shared with the processes forked from this one."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, 4 * _SLOTS)).cast("I")
        for slot in range(_SLOTS):
            self.leave(slot)

    def set(self, slot: int, connections: int) -> None:
        """Set the number of connections of the worker in a slot."""
        if slot < _SLOTS:
            self._numbers[slot] = connections

    def leave(self, slot: int) -> None:
        """Record that a slot has no worker."""
        self.set(slot, _NO_WORKER)

    def least(self) -> int:
        """Return the smallest number of connections of any worker."""
        return min(self._numbers)


load = WorkerLoad()
"""The instance of one gunicorn, created before its workers are forked."""
