"""gunicorn's settings: `gunicorn -c python:kazoo_ips.gunicorn_conf`."""

from kazoo_ips.server.gunicorn_conf import *  # noqa: F403 - gunicorn reads all names
