"""gunicorn's settings for `make run`: those of the service, and it ends when `make run` does.

A killed `make run` cannot stop gunicorn, which would keep the port. So gunicorn watches a pipe on
its stdin, as the embedded database does: only `make run` holds the other end.
"""

import os
import signal
from threading import Thread
from typing import Any

from kazoo_ips.server.gunicorn_conf import *  # noqa: F403 - gunicorn reads all names


def when_ready(_: Any) -> None:
    """Start watching, in the master process; its workers end when it does."""
    Thread(target=_stop_at_end_of_pipe, daemon=True).start()


def _stop_at_end_of_pipe() -> None:
    os.read(0, 1)  # sys.stdin has a lock, which would be held when gunicorn ends
    # Not SIGTERM, which lets requests finish: their database has ended as well.
    os.kill(os.getpid(), signal.SIGQUIT)
