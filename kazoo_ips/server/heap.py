"""One heap for all threads of a process."""

import ctypes
import os

_M_ARENA_MAX = -8
"""The parameter of glibc's `mallopt` (malloc.h)."""


def share_heap() -> None:
    """Let the threads of this process, and of those that it forks, share one heap.

    glibc gives each thread a heap of its own, which keeps the memory of its largest request. So
    the memory of a worker would grow for hours. The threads do not wait for each other: they
    allocate while they hold Python's lock. `MALLOC_ARENA_MAX` has precedence. Other C libraries
    have no such heaps.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_ARENA_MAX, 1)
