"""Which process this is, and whether another one has certainly died. Standard library only."""

import os
from functools import cache
from pathlib import Path


@cache
def _place() -> str:
    """Where process ids mean what they mean here: this boot of this machine, this namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def identity() -> str:
    """The name of this process, as others find it in records."""
    return f"{_place()}/{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether the process of that name is gone for certain.

    One on another machine may be alive for all we know, and so may one whose number somebody
    else has by now: those are given their time.
    """
    place, _, pid = name.rpartition("/")
    if not place or place != _place():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return False
