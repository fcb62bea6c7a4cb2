"""gunicorn's settings for a server that outlives a test: it runs no background work.

Background work repairs every address half a minute after a change. It would repair the damage that
a later test makes on purpose.
"""

from typing import Any

from kazoo_ips.server.gunicorn_conf import *  # noqa: F403 - gunicorn reads all names


def post_worker_init(_: Any) -> None:
    """Start no thread."""
