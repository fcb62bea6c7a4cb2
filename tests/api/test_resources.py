"""JSON resources: `dump_fast` compared with marshmallow's `dump`."""

import pytest

from kazoo_ips.api.lists import (
    AssignedIPListItemSchema,
    IPListItemSchema,
    PoolIPListItemSchema,
    dump_assigned_listing,
    dump_listing,
    dump_pool_listing,
)
from kazoo_ips.api.resources import DedicatedIPSchema, ReadOnlySchema
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
@pytest.mark.parametrize("names", [{}, {"a" * 32: "Example"}])
def test_a_line_of_a_list_is_the_same_as_dump_returns(
    owner: str | None, names: dict[str, str]
) -> None:
    listing = Listing("192.0.2.1", "zone", "proxy.example.com", owner, Status.ASSIGNED)
    named = {**listing._asdict(), "account_name": names.get(owner or "")}
    for schema, line in (
        (IPListItemSchema(), dump_listing(listing)),
        (AssignedIPListItemSchema(), dump_assigned_listing(listing, names)),
        (PoolIPListItemSchema(), dump_pool_listing(listing, names)),
    ):
        dumped = {name: value for name, value in schema.dump(named).items() if value is not None}
        assert line == dumped
