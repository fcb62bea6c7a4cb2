"""JSON resources: `dump_fast` compared with marshmallow's `dump`."""

import pytest

from kazoo_ips.api.resources import (
    AssignedIPListItemSchema,
    DedicatedIPSchema,
    IPListItemSchema,
    ReadOnlySchema,
)
from kazoo_ips.model import DedicatedIP, Listing, Status

AVAILABLE = DedicatedIP("192.0.2.1", "zone", "proxy.example.com", 1, 2, revision="1-a")
ASSIGNED = DedicatedIP("192.0.2.1", "zone", "h", 1, 2, Status.ASSIGNED, "a" * 32, "id", "2-b")


@pytest.mark.parametrize("schema", [DedicatedIPSchema(), ReadOnlySchema()])
@pytest.mark.parametrize("ip", [AVAILABLE, ASSIGNED])
def test_dump_fast_returns_the_same_as_dump(
    schema: DedicatedIPSchema | ReadOnlySchema, ip: DedicatedIP
) -> None:
    dumped = {name: value for name, value in schema.dump(ip).items() if value is not None}
    assert schema.dump_fast(ip) == dumped
    assert len(dumped) >= 6


@pytest.mark.parametrize("owner", [None, "a" * 32])
def test_dump_fast_returns_the_same_line_as_dump(owner: str | None) -> None:
    listing = Listing("192.0.2.1", "zone", "proxy.example.com", owner)
    owned = AssignedIPListItemSchema(exclude=["account_name"])
    for schema in (owned, IPListItemSchema()):
        dumped = {name: value for name, value in schema.dump(listing).items() if value is not None}
        assert schema.dump_fast(listing) == dumped
        assert ("assigned_to" in dumped) == (bool(owner) and "assigned_to" in schema.dump_fields)
