"""gunicorn's settings for the bare route: the service's own, without what it counts and keeps."""

from gunicorn.config import KNOWN_SETTINGS

from kazoo_ips.server import gunicorn_conf

_names = {setting.name for setting in KNOWN_SETTINGS} - {"wsgi_app"}
globals().update(
    {
        name: value
        for name, value in vars(gunicorn_conf).items()
        if name in _names and not callable(value)
    }
)
# What shares connections out among the workers.
pre_fork, child_exit = gunicorn_conf.pre_fork, gunicorn_conf.child_exit
