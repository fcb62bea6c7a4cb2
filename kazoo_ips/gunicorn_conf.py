"""gunicorn's settings, with their reasons: `gunicorn -c python:kazoo_ips.gunicorn_conf`.

The application is made in each worker (no preload), so that no connection is older than its
process.
"""

import os
import sys
from typing import Any

from kazoo_ips import shared_counts
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.shared_table import shared

try:
    _settings = Settings.load(os.environ)
except BadSetting as error:
    sys.exit(str(error))

# Made before the workers are, so that they have it in common.
shared()

wsgi_app = "kazoo_ips.app:create_app()"
bind = _settings.bind
workers = _settings.workers
# A request waits for CouchDB most of its time, and the driver's session may be shared by threads.
worker_class = "kazoo_ips.worker.EnvelopeWorker"
threads = _settings.threads
# Longer than the slowest chain of CouchDB requests that one request makes.
timeout = 60
graceful_timeout = 30
# A little longer than what reverse proxies keep idle connections for.
keepalive = 75
# Below the 1,024 files that a process may usually have open.
worker_connections = 800
# A token is about 700 bytes; a head of more than 64 KiB in all is refused as well.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# Nobody is trusted here: `X-Forwarded-For` is read in api/clients.py.
forwarded_allow_ips = ""
loglevel = _settings.log_level
# The application logs each request itself, and knows what must not be in the line.
logger_class = "kazoo_ips.worker.Logger"
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Make a folder for what the workers count."""
    server.counts = shared_counts.make_folder()


def on_exit(server: Any) -> None:
    """Remove it."""
    if hasattr(server, "counts"):
        shared_counts.remove_folder(server.counts)


def pre_fork(server: Any, worker: Any) -> None:
    """Choose where the new worker counts: one that has died has left the list, and its place."""
    worker.place = shared_counts.free_place(each.place for each in server.WORKERS.values())


def post_fork(_server: Any, worker: Any) -> None:
    """Count there, before the application is made."""
    shared_counts.count_at(worker.place)


def post_worker_init(worker: Any) -> None:
    """Every worker looks after what was left unfinished, in a thread of its own."""
    worker.wsgi.extensions["kazoo_ips"].housekeeping.start()
