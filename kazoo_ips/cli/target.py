"""Where a command does its work: on CouchDB, or at the URL of a service.

The first of these that is given decides: `--url`, `--profile`, KAZOO_IPS_URL, KAZOO_IPS_PROFILE.
Without them it is the profile `default`, if there is one and the environment names no CouchDB.
Otherwise the command works on CouchDB.
"""

import os
from dataclasses import dataclass, field, fields, replace

import click

from kazoo_ips.cli import profiles
from kazoo_ips.config import BadSetting
from kazoo_ips.remote.client import Service, service_url

_COUCHDB = ("COUCHDB_URL", "COUCHDB_ADMIN_URL")


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The options before the name of the command."""

    url: str | None = None
    token: str | None = field(default=None, repr=False)
    profile: str | None = None
    ca_file: str | None = None


def options() -> TargetOptions:
    """Return the options in front of the current command. `sup` has none."""
    return _given() or TargetOptions()


def _given() -> TargetOptions | None:
    context = click.get_current_context(silent=True)
    names = [each.name for each in fields(TargetOptions)]
    values = context.find_root().params if context else {}
    return (
        TargetOptions(**{name: values[name] for name in names}) if {*names} <= {*values} else None
    )


def chosen() -> Service | None:
    """Return the service at whose URL the current command works; None for CouchDB.

    :raises BadSetting: the URL is invalid, or there is no such profile
    """
    given = _given()
    if given is None:
        return None
    service = _service(given)
    if service is None:
        if given.token or given.ca_file:
            raise BadSetting("--token and --ca-file need --url or --profile")
        return None
    return replace(
        service,
        token=given.token or service.token,
        ca_file=given.ca_file or os.environ.get("KAZOO_IPS_CA_FILE") or service.ca_file,
    )


def _service(given: TargetOptions) -> Service | None:
    if given.url:
        return _at(given.url, "--url")
    if given.profile:
        return _of_profile(given.profile)
    if os.environ.get("KAZOO_IPS_URL"):
        return _at(os.environ["KAZOO_IPS_URL"], "KAZOO_IPS_URL")
    if os.environ.get("KAZOO_IPS_PROFILE"):
        return _of_profile(os.environ["KAZOO_IPS_PROFILE"])
    if any(os.environ.get(name) for name in _COUCHDB):
        return None
    default = profiles.load().get(profiles.DEFAULT)
    return default.service() if default else None


def _at(url: str, source: str) -> Service:
    """Return the service at a URL, with the token of the environment or of its profile.

    :param source: where the URL was given, for the error
    :raises BadSetting: it is not a URL
    """
    try:
        url = service_url(url)
    except ValueError as error:
        raise BadSetting(f"{source}: {error}") from error
    token = os.environ.get("KAZOO_IPS_TOKEN")
    if token:
        return Service(url, token)
    known = (each for each in profiles.load().values() if each.url == url)
    profile = next(known, None)
    return profile.service() if profile else Service(url)


def _of_profile(name: str) -> Service:
    found = profiles.load()
    if name not in found:
        kept = ", ".join(found) or "none"
        raise BadSetting(f"there is no profile {name}; profiles: {kept}")
    return found[name].service()
