"""gunicorn's settings, with their reasons: `gunicorn -c python:kazoo_ips.gunicorn_conf`.

The application is made in each worker (no preload), so that no connection is older than its
process.
"""

import math
import os
import sys
from typing import Any

from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.observability import multiprocess_metrics
from kazoo_ips.processes import recent_writes, shared_table
from kazoo_ips.processes.worker_load import load

try:
    _settings = Settings.load(os.environ)
except BadSetting as error:
    sys.exit(str(error))

# Made before the workers are, so that they have it in common.
shared_table.shared("attempts")
shared_table.shared("logins")
recent_writes.shared()

wsgi_app = "kazoo_ips.app:create_app()"
# host:port, [host]:port, or several with commas between them.
bind = [each.strip() for each in _settings.bind.split(",")]
# Connections that wait while all workers are busy, or while a release changes.
backlog = 2048

# A request waits for CouchDB most of its time: threads share what a process costs. More workers
# than processor cores do not help, more threads do, until CouchDB is what is waited for.
workers = _settings.workers
worker_class = "kazoo_ips.server.worker.EnvelopeWorker"
threads = _settings.threads

# Seconds that a worker's main loop may be silent: it beats once a second whatever the threads do,
# so this is for a process that has stopped altogether. How long a request may take is bounded by
# the time CouchDB is given for each answer.
timeout = 60
# Seconds to finish what was accepted: longer than the slowest chain of CouchDB requests that one
# write makes. What takes longer is cut off, and undone by another worker from its note.
graceful_timeout = 30
# Longer than the 60 s for which reverse proxies keep an idle connection, so that it is they who
# close it and none sends a request into a closing one.
keepalive = 75
# Below the 1,024 files that a process may usually have open.
worker_connections = 800
# A token is about 700 bytes; a head of more than 64 KiB in all is refused as well.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# Nobody is trusted here: `X-Forwarded-For` is read in api/client_address.py.
forwarded_allow_ips = ""

# A fresh process now and then, against whatever may leak. The worker answers what it has accepted,
# with "Connection: close", before it goes; with the jitter they do not all go at once.
max_requests = _settings.max_requests
max_requests_jitter = max_requests // 10

# The heartbeat's file: in memory, as a slow disk would look like a silent worker.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
loglevel = _settings.log_level
# The application logs each request itself, and knows what must not be in the line.
logger_class = "kazoo_ips.server.worker.Logger"
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Make a folder for what the workers count."""
    server.counts = multiprocess_metrics.make_folder()


def on_exit(server: Any) -> None:
    """Remove it."""
    if hasattr(server, "counts"):
        multiprocess_metrics.remove_folder(server.counts)


def pre_fork(server: Any, worker: Any) -> None:
    """Choose where the new worker counts: one that has died has left the list, and its place."""
    worker.place = multiprocess_metrics.free_place(each.place for each in server.WORKERS.values())


def post_fork(_server: Any, worker: Any) -> None:
    """Count there, before the application is made."""
    multiprocess_metrics.count_at(worker.place)


def post_worker_init(worker: Any) -> None:
    """Every worker looks after what was left unfinished, in a thread of its own."""
    worker.wsgi.extensions["kazoo_ips"].background.start()


def child_exit(_: Any, worker: Any) -> None:
    """A worker that has gone holds no connections, however it went."""
    load.leave(worker.place)


def worker_exit(_: Any, worker: Any) -> None:
    """What a worker meant to look at later, it looks at before it goes."""
    application = getattr(worker, "wsgi", None)  # none in the master, nor when it did not start
    if application is not None:
        application.extensions["kazoo_ips"].background.look_again(math.inf)
