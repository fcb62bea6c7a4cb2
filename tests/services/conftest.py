"""What the tests of several services need."""

import pytest

from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.repositories.accounts import account_database
from tests.conftest import Member


@pytest.fixture
def copies(couch: Couch, alice: Member) -> Database:
    """Alice's database, with the copies in it."""
    return couch.database(account_database(alice.id))
