"""The name of this process, and whether another process is dead. Standard library only."""

import os
from functools import cache
from pathlib import Path


@cache
def _namespace() -> str:
    """Return the scope in which process ids are unique: boot id and process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def identity() -> str:
    """Return the name of this process, as it is stored in records."""
    return f"{_namespace()}/{os.getpid()}"


def is_dead(name: str) -> bool:
    """Whether the process of that name is certainly dead.

    False for a process of another machine, and for a process whose id is in use again. Callers
    then wait for a timeout.
    """
    namespace, _, pid = name.rpartition("/")
    if not namespace or namespace != _namespace():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return False
