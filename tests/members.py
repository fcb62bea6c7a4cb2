"""The service as a plain member of CouchDB; COUCHDB_ADMIN_URL names who sets it up."""

from kazoo_ips import app as composition
from kazoo_ips.config import Settings


def add_member(settings: Settings) -> None:
    """Let the service's user into the databases there are, unless it may do everything anyway."""
    if settings.couchdb_admin_url:
        access = composition.access(settings)
        access.ensure_user()
        list(access.add_member(access.databases(), lambda count: None))
