"""How long two workers with the default settings cache the caller of a token."""

import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips.app import build
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member
from tests.servers import Gunicorn

WITHIN = 5.0
"""Seconds within which a change must work everywhere."""


@pytest.fixture(scope="module")
def server(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two workers with the default settings."""
    defaults = {k: v for k, v in environment.items() if k != "KAZOO_IPS_IDENTITY_CACHE"}
    log = tmp_path_factory.mktemp("revocation") / "log"
    with Gunicorn(defaults, log, workers=2) as gunicorn:
        yield gunicorn.url


def test_a_revoked_token_stops_working_on_all_workers_within_five_seconds(
    server: str, couch: Couch, settings: Settings, operator: Member, member: Callable[..., Member]
) -> None:
    services = build(settings)
    parent = member("Parent", operator)
    disabled, renewed, moved, left, restricted = (
        member(name, parent) for name in ("Disabled", "Renewed", "Moved", "Left", "Restricted")
    )
    requests = {
        "an account that is disabled": (disabled.token, disabled, 401),
        "a user with another secret": (renewed.token, renewed, 401),
        "an account that moved away from the caller's": (parent.token, moved, 403),
        "a user that is disabled": (left.token, left, 401),
        "a token that is restricted": (restricted.token, restricted, 403),
    }
    http = urllib3.PoolManager(maxsize=1)

    def statuses(times: int) -> dict[str, set[int]]:
        # Each request has its own connection, so that both workers get some.
        return {
            what: {
                http.request(
                    "GET",
                    f"{server}/v2/accounts/{account.id}/ips/assigned",
                    headers={"X-Auth-Token": token, "Connection": "close"},
                ).status
                for _ in range(times)
            }
            for what, (token, account, _) in requests.items()
        }

    assert statuses(10) == {what: {200} for what in requests}

    services.accounts.set_enabled(disabled.id, False)
    services.accounts.disable_user(left.id, "admin")
    change(couch, renewed, renewed.user.id, pvt_signature_secret=uuid4().hex)
    change(couch, moved, moved.id, pvt_tree=[operator.id])
    couch.database(account_database(restricted.id)).put(
        {
            "_id": "token_restrictions",
            "pvt_type": "token_restrictions",
            "restrictions": {"_": {"_": {"devices": []}}},
        }
    )
    end = time.monotonic() + WITHIN
    # Requests are sent all the time, so that entries of the caches are used again and again.
    while time.monotonic() < end:
        statuses(2)
        time.sleep(0.2)
    assert statuses(10) == {what: {status} for what, (_, _, status) in requests.items()}


def change(couch: Couch, member: Member, document_id: str, **fields: object) -> None:
    """Change a document of an account in the database, past the service."""
    database = couch.database(account_database(member.id))
    database.put({**database.get(document_id), **fields})
