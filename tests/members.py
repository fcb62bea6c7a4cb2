"""Lets the service's CouchDB user be a plain member. COUCHDB_ADMIN_URL names the administrator."""

from kazoo_ips import app as composition
from kazoo_ips.config import Settings


def add_member(settings: Settings) -> None:
    """Make the service's user a member of all databases, unless it is an administrator."""
    if settings.couchdb_admin_url:
        access = composition.access(settings)
        access.ensure_user()
        list(access.add_member(access.databases(), lambda count: None))
