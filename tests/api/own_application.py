"""An application on databases of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from tests.api.couchdb import Databases
from tests.openapi_check import CheckedApp
from tests.own_databases import own_databases


@dataclass(frozen=True)
class OwnApplication:
    """An application on databases of its own, and the operator's account there."""

    settings: Settings
    services: Instance
    databases: Databases
    api: TestApp
    id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """The header with the caller's token."""
        return {"X-Auth-Token": self.token}


@contextmanager
def create_own_application(settings: Settings) -> Iterator[OwnApplication]:
    """Create the application, and delete its databases at the end."""
    with own_databases(settings) as own:
        services = composition.build(own.as_administrator())
        account = services.accounts.create("Operator", "operator.example.com")
        token = services.auth.open_session(account).token
        yield OwnApplication(
            own,
            services,
            Databases(own.as_administrator().couchdb_url, own.prefix),
            CheckedApp(composition.create_app(own)),
            account.id,
            token,
        )
