"""gunicorn's settings for `make run`: those of the service; gunicorn ends when `make run` ends.

A `make run` that is killed cannot stop gunicorn, which would keep the port. So gunicorn, like the
embedded database, watches a pipe on its stdin. Only `make run` holds the other end.
"""

import os
import signal
from threading import Thread
from typing import Any

from kazoo_ips.server.gunicorn_conf import *  # noqa: F403 - gunicorn reads all names


def when_ready(_: Any) -> None:
    """Start a thread that watches the pipe, in the master process. Workers end with the master."""
    Thread(target=_stop_at_end_of_pipe, daemon=True).start()


def _stop_at_end_of_pipe() -> None:
    os.read(0, 1)  # sys.stdin has a lock, which would be held when gunicorn ends
    # SIGQUIT does not wait for requests: their database has ended too.
    os.kill(os.getpid(), signal.SIGQUIT)
