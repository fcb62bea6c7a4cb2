"""The files in which gunicorn workers keep their counts, so that any worker can return the sums.

Each gunicorn master has a folder, which has one set of memory-mapped files for each *slot*. A new
worker takes a free slot. The successor of a dead worker takes its slot and continues its counts.
So no count decreases, and there are never more sets of files than workers at once.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import values

from kazoo_ips.processes import liveness

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable from which prometheus_client reads the folder."""
_PREFIX = "kazoo-ips-counts-"
_OWNER = "owner"


def make_folder() -> Path:
    """Create the folder of this master, and remove the folders of masters that were killed."""
    for other in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if liveness.is_dead((other / _OWNER).read_text()):
                shutil.rmtree(other, ignore_errors=True)
        except OSError:  # it belongs to another user, or is being removed
            continue
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    (folder / _OWNER).write_text(liveness.identity())
    os.environ[_VARIABLE] = str(folder)
    return folder


def remove_folder(folder: Path) -> None:
    """Remove the folder of this master, when it exits."""
    shutil.rmtree(folder, ignore_errors=True)


def free_slot(taken: Iterable[int]) -> int:
    """Return the lowest slot that is not taken."""
    used = set(taken)
    return next(slot for slot in range(len(used) + 1) if slot not in used)


def count_at(slot: int) -> None:
    """Store the counts of this process in the files of a slot from now on."""
    values.ValueClass = values.MultiProcessValue(lambda: slot)  # type: ignore[no-untyped-call]
