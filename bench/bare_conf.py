"""gunicorn's settings for the bare route: those of the service, without its hooks."""

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
# These two spread connections over the workers.
pre_fork, child_exit = gunicorn_conf.pre_fork, gunicorn_conf.child_exit
