"""A program with a client that openapi-python-client has generated: list, allocate, typed errors.

`test_generated_client.py` checks its types and runs it. Arguments: URL, token, account id.
"""

import sys

from kazoo_ips_client import AuthenticatedClient
from kazoo_ips_client.api.account_ips import assign_ips, get_ip, list_available_ips
from kazoo_ips_client.models import (
    Allocate,
    Assign,
    AssignOrAllocateRequest,
    ChangedAddressesReply,
    DedicatedIPReply,
    ErrorBadIdentifier,
    ErrorInsufficientIps,
    ErrorInvalidCredentials,
    ErrorValidation,
    IPList,
)


def main(url: str, token: str, account: str) -> None:
    client = AuthenticatedClient(url, token, prefix="", auth_header_name="X-Auth-Token")

    listed = list_available_ips.sync(account, client=client, page_size=1)
    assert isinstance(listed, IPList), listed
    print("listed", [line.ip for line in listed.data], listed.data[0].zone, listed.page_size)
    assert isinstance(listed.next_start_key, str)
    rest = list_available_ips.sync(account, client=client, start_key=listed.next_start_key)
    assert isinstance(rest, IPList), rest
    print("next page", [line.ip for line in rest.data], not rest.next_start_key)

    request = AssignOrAllocateRequest(data=Allocate(quantity=1, zone="us-east"))
    allocated = assign_ips.sync(account, client=client, body=request)
    assert isinstance(allocated, ChangedAddressesReply), allocated
    [address] = allocated.data.ips
    detail = get_ip.sync(account, address, client=client)
    assert isinstance(detail, DedicatedIPReply), detail
    print("allocated", detail.data.status, detail.data.assigned_to == account)

    request = AssignOrAllocateRequest(data=Allocate(quantity=9))
    refused = assign_ips.sync(account, client=client, body=request)
    assert isinstance(refused, ErrorInsufficientIps), refused
    print(refused.message, refused.data.requested, refused.data.available)

    request = AssignOrAllocateRequest(data=Assign(ips=["192.0.2.99"]))
    invalid = assign_ips.sync(account, client=client, body=request)
    assert isinstance(invalid, ErrorValidation), invalid
    rules = invalid.data.additional_properties["ips.0"].additional_properties
    print(invalid.message, {name: rule.message for name, rule in rules.items()})

    missing = get_ip.sync(account, "192.0.2.99", client=client)
    assert isinstance(missing, ErrorBadIdentifier), missing
    print(missing.message, missing.data.cause)

    stranger = AuthenticatedClient(url, "x", prefix="", auth_header_name="X-Auth-Token")
    unknown = list_available_ips.sync(account, client=stranger)
    assert isinstance(unknown, ErrorInvalidCredentials), unknown
    print(unknown.error, unknown.message)


if __name__ == "__main__":
    main(*sys.argv[1:])
