"""Where several gunicorn workers keep what they count, so that one of them can tell it all.

One folder for each master, one set of memory-mapped files for each *place* in it. A worker takes a
place that nobody has; who comes after a dead one takes its place and counts on from there. So no
count goes backwards, and there are never more files than workers at once.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import values

from kazoo_ips.processes import liveness

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""By this name prometheus_client finds the folder."""
_PREFIX = "kazoo-ips-counts-"
_OWNER = "owner"


def make_folder() -> Path:
    """Make this master's folder, and remove those of masters that were killed."""
    for other in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if liveness.is_dead((other / _OWNER).read_text()):
                shutil.rmtree(other, ignore_errors=True)
        except OSError:  # somebody else's, or being removed
            continue
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / _OWNER).write_text(liveness.identity())
    os.environ[_VARIABLE] = str(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove this master's folder, at its end."""
    shutil.rmtree(folder, ignore_errors=True)


def free_place(taken: Iterable[int]) -> int:
    """The lowest place that is not taken."""
    others = set(taken)
    return next(place for place in range(len(others) + 1) if place not in others)


def count_at(place: int) -> None:
    """Let what this process counts from now on be counted at that place."""
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]
