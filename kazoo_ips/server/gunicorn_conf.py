"""gunicorn's settings, with their reasons: `gunicorn -c python:kazoo_ips.gunicorn_conf`.

Each worker creates its own application (no preload), so workers share no connection to CouchDB.
"""

import math
import os
import sys
from importlib.util import find_spec
from typing import Any

from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.observability import multiprocess_metrics, tracing
from kazoo_ips.processes import recent_writes, shared_table
from kazoo_ips.processes.worker_load import load
from kazoo_ips.server.heap import share_heap

try:
    _settings = Settings.load(os.environ)
except BadSetting as error:
    sys.exit(str(error))
if _settings.amqp_url and find_spec("kombu") is None:
    sys.exit("KAZOO_IPS_AMQP_URL: kombu is missing; install kazoo_ips[bus]")

share_heap()
# Created before the workers are forked, so that they share this memory.
shared_table.shared("attempts")
shared_table.shared("logins")
shared_table.shared("requests")
recent_writes.shared()

wsgi_app = "kazoo_ips.app:create_app()"
# host:port, [host]:port, or several, separated by commas.
bind = [each.strip() for each in _settings.bind.split(",")]
# The maximum number of connections that wait while all workers are busy, or a release is switched.
backlog = 2048

# A request spends most of its time waiting for CouchDB, so several threads share one process. More
# workers than processor cores do not help. More threads help until CouchDB is the bottleneck.
workers = _settings.workers
worker_class = "kazoo_ips.server.worker.EnvelopeWorker"
threads = _settings.threads

# Seconds without a heartbeat after which a worker is killed. The main loop sends a heartbeat every
# second, independently of the threads. So only a process that hangs is killed. The timeouts for
# CouchDB limit the duration of a request.
timeout = 60
# Seconds to finish accepted requests: longer than the slowest chain of CouchDB requests of one
# write. A request that takes longer is aborted, and another worker recovers its transaction.
graceful_timeout = 30
# Longer than the 60 s for which reverse proxies keep an idle connection. So the proxy closes it
# first, and never sends a request on a connection that gunicorn is closing.
keepalive = 75
# Below the 1,024 files that a process may usually have open.
worker_connections = 800
# A token has about 700 bytes. Request line and headers may have 64 KiB in all (client_socket.py).
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# gunicorn trusts no proxy: `X-Forwarded-For` is read in api/client_address.py.
forwarded_allow_ips = ""

# A worker is replaced after this number of requests, as a precaution against memory leaks. It
# replies to accepted requests, with "Connection: close", before it ends. The jitter prevents that
# all workers end at once.
max_requests = _settings.max_requests
max_requests_jitter = max_requests // 10

# The directory of the heartbeat's file: in memory, because a slow disk would delay heartbeats.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
loglevel = _settings.log_level
# The application logs requests itself, without secrets.
logger_class = "kazoo_ips.server.worker.Logger"
control_socket_disable = True


def on_starting(server: Any) -> None:
    """Create the directory for the metrics of the workers."""
    server.counts = multiprocess_metrics.make_folder()


def on_exit(server: Any) -> None:
    """Remove the directory for the metrics."""
    if hasattr(server, "counts"):
        multiprocess_metrics.remove_folder(server.counts)


def pre_fork(server: Any, worker: Any) -> None:
    """Choose the files for the new worker's metrics. The files of a dead worker are used again."""
    worker.slot = multiprocess_metrics.free_slot(each.slot for each in server.WORKERS.values())


def post_fork(_server: Any, worker: Any) -> None:
    """Open the files for the worker's metrics, before the application is created."""
    multiprocess_metrics.count_at(worker.slot)


def post_worker_init(worker: Any) -> None:
    """Start tracing, and the threads for background work, webhooks, jobs and consumers of events.

    They are not started earlier, because a worker without its own signal handlers would lose a
    signal to end.
    """
    tracing.start()
    services = worker.wsgi.extensions["kazoo_ips"]
    services.background.start()
    services.webhook_sender.start()
    services.scheduled_doctor.start()
    services.job_thread.start()
    for consumer in services.consumers():
        consumer.start()


def child_exit(_: Any, worker: Any) -> None:
    """Remove a worker that has ended from the numbers of connections."""
    load.leave(worker.slot)


def worker_exit(_: Any, worker: Any) -> None:
    """Do the checks of addresses that this worker has scheduled for later. Export its spans."""
    application = getattr(worker, "wsgi", None)  # missing in the master, and if the start failed
    if application is not None:
        application.extensions["kazoo_ips"].background.check_due(math.inf)
    tracing.stop()
