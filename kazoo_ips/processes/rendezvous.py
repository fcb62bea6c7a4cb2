"""Threads that will soon be at the same place, so that who comes first can wait for the others.

Standard library only.
"""

from threading import Condition, get_ident, local


class Rendezvous:
    """A place where threads are expected."""

    def __init__(self) -> None:
        self._expected: set[int] = set()
        self._changed = Condition()

    def expect(self) -> None:
        """This thread will come here, unless something comes between: then it will `leave_all`."""
        _of_thread.places.add(self)
        with self._changed:
            self._expected.add(get_ident())

    def arrive(self) -> None:
        """This thread is here, or has gone elsewhere."""
        thread = get_ident()
        if thread in self._expected:
            _of_thread.places.discard(self)
            with self._changed:
                self._expected.discard(thread)
                if not self._expected:
                    self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Wait until nobody is expected any longer, for a time."""
        if self._expected:
            with self._changed:
                self._changed.wait_for(lambda: not self._expected, seconds)


class _OfThread(local):
    def __init__(self) -> None:
        self.places: set[Rendezvous] = set()


_of_thread = _OfThread()


def leave_all() -> None:
    """This thread is not expected anywhere any longer."""
    for place in list(_of_thread.places):
        place.arrive()


FIRST_QUESTION = Rendezvous()
"""Where threads are expected that have a request, or wait a moment for one, and have not asked the
database anything for it."""
