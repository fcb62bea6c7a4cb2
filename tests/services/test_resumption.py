"""A later attempt of a request returns the result of an earlier one, or executes the request.

All attempts have the same request id. Callers choose it, so two requests can have the same id.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from kazoo_ips.errors import Conflict, IPExists, IPNotFound, ValidationFailed
from kazoo_ips.model import (
    AllocateIPs,
    AssignIP,
    Attempt,
    CreateIP,
    DedicatedIP,
    DeleteIP,
    ReleaseIP,
    TransferIPs,
)
from tests.conftest import Member
from tests.faults.conftest import proxied_settings, proxy, running_proxy
from tests.faults.proxy import FaultProxy, Forward, Hangup, Reply

__all__ = ["proxied_settings", "proxy", "running_proxy"]


@pytest.fixture
def second_attempt() -> Attempt:
    return Attempt(uuid4().hex, 2)


def write_late(copies: Database, copy: dict[str, Any]) -> None:
    """Write a removed copy once more, as a delayed write of the first attempt does."""
    copies.put({k: v for k, v in copy.items() if k != "_rev"})


@pytest.fixture
def request_id() -> str:
    """The id of the request, which all its attempts have."""
    return uuid4().hex


def test_the_result_of_an_assignment_is_returned_and_its_copy_written(
    services: Instance,
    add: Callable[..., DedicatedIP],
    copies: Database,
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    command = AssignIP(alice.id, address)
    first = services.ips.assign(command, request_id)
    copies.remove(address, copies.get(address)["_rev"])
    result = services.ips.assign(command, request_id, attempt=second_attempt)
    assert (result.assigned_to, result.modified) == (alice.id, first.modified)
    assert result.revision != first.revision  # confirmed by a write
    assert copies.get_all([address])


def test_the_result_of_an_assignment_is_returned_although_the_address_was_assigned_since(
    services: Instance,
    add: Callable[..., DedicatedIP],
    copies: Database,
    alice: Member,
    bob: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    command = AssignIP(alice.id, address)
    services.ips.assign(command, request_id)
    copy = copies.get(address)
    services.ips.release(ReleaseIP(alice.id, address), uuid4().hex)
    services.ips.assign(AssignIP(bob.id, address), uuid4().hex)
    write_late(copies, copy)
    assert services.ips.assign(command, request_id, attempt=second_attempt).assigned_to == alice.id
    assert services.ips.fetch(address).assigned_to == bob.id
    assert not copies.get_all([address])


def test_the_result_of_a_release_is_returned_and_its_copy_removed(
    services: Instance,
    add: Callable[..., DedicatedIP],
    copies: Database,
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    copy = copies.get(address)
    first = services.ips.release(ReleaseIP(alice.id, address), request_id)
    write_late(copies, copy)
    result = services.ips.release(ReleaseIP(alice.id, address), request_id, attempt=second_attempt)
    assert (result.assigned_to, result.modified) == (None, first.modified)
    assert services.ips.fetch(address).revision != first.revision
    assert not copies.get_all([address])


def test_the_result_of_a_release_is_returned_whoever_has_the_address_now(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    services.ips.release(ReleaseIP(alice.id, address), request_id)
    since = services.ips.assign(AssignIP(bob.id, address), uuid4().hex)
    result = services.ips.release(ReleaseIP(alice.id, address), request_id, attempt=second_attempt)
    assert result.assigned_to is None
    assert services.ips.fetch(address) == since  # nothing is written to it


def test_a_later_attempt_does_what_no_earlier_one_has_done(
    services: Instance, operator: Member, address: str, request_id: str, second_attempt: Attempt
) -> None:
    with pytest.raises(IPNotFound):
        services.pool.delete(DeleteIP(address), request_id, attempt=second_attempt)
    created = services.pool.create(
        CreateIP(address, "z", "h.example.com"), request_id, attempt=second_attempt
    )
    assert services.ips.fetch(address) == created
    assert (
        services.pool.delete(DeleteIP(address), request_id, attempt=second_attempt).address
        == address
    )


def test_the_result_of_a_release_is_returned_to_its_account_only(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    services.ips.release(ReleaseIP(alice.id, address), request_id)
    with pytest.raises(ValidationFailed):
        services.ips.release(ReleaseIP(bob.id, address), request_id, attempt=second_attempt)
    with pytest.raises(ValidationFailed):
        services.ips.release(ReleaseIP(alice.id, address), uuid4().hex, attempt=second_attempt)


def test_a_release_with_the_request_id_of_the_assignment_is_done(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), request_id)
    services.ips.release(ReleaseIP(alice.id, address), request_id, attempt=second_attempt)
    assert services.ips.fetch(address).assigned_to is None


@pytest.mark.parametrize("resumed", [False, True])
def test_a_write_that_loses_to_an_earlier_attempt_returns_its_result(
    proxy: FaultProxy,
    proxied_settings: Settings,
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
    resumed: bool,
) -> None:
    add(address)
    command = AssignIP(alice.id, address)

    def fault(forward: Forward) -> Reply:
        services.ips.assign(command, request_id if resumed else "another")
        return forward()

    proxy.rule(fault, "PUT", f"-dedicated_ips/{address}")
    through = composition.build(
        proxied_settings, clock=lambda: time.time() + 5
    )  # writes at another time
    if resumed:
        assert (
            through.ips.assign(command, request_id, attempt=second_attempt).assigned_to == alice.id
        )
    else:
        with pytest.raises(Conflict):
            through.ips.assign(command, request_id)


@pytest.mark.parametrize("since", ["nothing", "assigned", "deleted"])
def test_the_result_of_an_addition_is_returned(
    services: Instance,
    pool: Database,
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
    since: str,
) -> None:
    command = CreateIP(address, "us-east", "proxy1.example.com")
    services.pool.create(command, request_id)
    if since == "assigned":
        services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    if since == "deleted":
        services.pool.delete(DeleteIP(address), uuid4().hex)
    result = services.pool.create(command, request_id, attempt=second_attempt)
    assert (result.address, result.status) == (address, "available")
    assert bool(pool.get_all([address])) == (since != "deleted")


def test_an_address_added_by_another_client_at_the_same_time_exists(
    proxy: FaultProxy, proxied_settings: Settings, services: Instance, pool: Database, address: str
) -> None:
    command = CreateIP(address, "us-east", "proxy1.example.com")

    def fault(forward: Forward) -> Reply:
        services.pool.create(command, "another")
        raise Hangup

    proxy.rule(fault, "PUT", f"-dedicated_ips/{address}")
    with pytest.raises(IPExists):
        composition.build(proxied_settings).pool.create(command, "mine")


def test_the_result_of_a_deletion_is_returned_and_the_copy_removed(
    services: Instance,
    add: Callable[..., DedicatedIP],
    copies: Database,
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    copy = copies.get(address)
    services.pool.delete(DeleteIP(address, force=True), request_id)
    write_late(copies, copy)
    assert services.pool.delete(DeleteIP(address, force=True), request_id, attempt=second_attempt)
    assert not copies.get_all([address])
    with pytest.raises(IPNotFound):
        services.pool.delete(DeleteIP(address, force=True), uuid4().hex, attempt=second_attempt)


def test_the_copy_of_an_address_that_kazoo_assigned_is_removed_after_a_repeated_deletion(
    services: Instance,
    add: Callable[..., DedicatedIP],
    pool: Database,
    copies: Database,
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    """The trail has no assignment. The release that is part of the deletion names the account."""
    add(address)
    pool.put({**pool.get(address), "pvt_status": "assigned", "pvt_assigned_to": alice.id})
    services.pool.delete(DeleteIP(address, force=True), request_id)
    copies.put({"_id": address, "pvt_type": "dedicated_ip", "pvt_assigned_to": alice.id})
    assert services.pool.delete(DeleteIP(address, force=True), request_id, attempt=second_attempt)
    assert not copies.get_all([address])


def test_a_later_attempt_does_not_report_the_addition_by_another_request(
    services: Instance,
    add: Callable[..., DedicatedIP],
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    added = add(address)
    with pytest.raises(IPExists):
        services.pool.create(
            CreateIP(address, "z", "h.example.com"), request_id, attempt=second_attempt
        )
    assert services.ips.fetch(address) == added


class Readdition:
    """Deletes an address and adds it again, in another zone."""

    def __init__(self, services: Instance, pool: Database, several: bool) -> None:
        self._services, self._pool, self._several = services, pool, several

    def __call__(self, address: str) -> None:
        if self._pool.get_all([address]):
            self._services.pool.delete(DeleteIP(address, force=True), uuid4().hex)
        command = CreateIP(address, "anew", "proxy2.example.com")
        if self._several:
            self._services.bulk_additions.create_all([command], uuid4().hex)
        else:
            self._services.pool.create(command, uuid4().hex)


@pytest.fixture(params=[False, True], ids=["one", "several"])
def add_again(services: Instance, pool: Database, request: pytest.FixtureRequest) -> Readdition:
    return Readdition(services, pool, request.param)


def test_a_deletion_is_not_repeated_after_the_address_was_added_again(
    services: Instance,
    add: Callable[..., DedicatedIP],
    add_again: Readdition,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.pool.delete(DeleteIP(address, force=True), request_id)
    add_again(address)
    assert services.pool.delete(DeleteIP(address, force=True), request_id, attempt=second_attempt)
    assert services.ips.fetch(address).zone == "anew"


def meanwhile(proxy: FaultProxy, number: int, work: Callable[[], object]) -> None:
    """Let other clients work just before a request to the pool.

    :param number: the number of this request, from 1
    """

    def fault(forward: Forward) -> Reply:
        work()
        return forward()

    proxy.rule(fault, path="-dedicated_ips", first=number)


NUMBERS = range(1, 8)
"""The numbers of the requests to the pool that an addition sends before its write, and a deletion
up to its write."""


@pytest.mark.parametrize("late", [False, True], ids=["done", "late"])
@pytest.mark.parametrize("number", NUMBERS)
def test_a_deletion_is_not_repeated_while_the_address_is_added_again(
    proxy: FaultProxy,
    proxied_settings: Settings,
    services: Instance,
    add: Callable[..., DedicatedIP],
    address: str,
    request_id: str,
    second_attempt: Attempt,
    number: int,
    late: bool,
) -> None:
    def first_attempt() -> None:
        with suppress(IPNotFound):  # the later attempt has deleted it
            services.pool.delete(DeleteIP(address), request_id)

    def others() -> None:
        if late:
            first_attempt()
        services.pool.create(CreateIP(address, "anew", "proxy2.example.com"), uuid4().hex)
        added.append(address)

    add(address)
    added: list[str] = []
    if not late:
        first_attempt()
    through = composition.build(proxied_settings)
    meanwhile(proxy, number, others)
    assert (
        through.pool.delete(DeleteIP(address), request_id, attempt=second_attempt).address
        == address
    )
    if added:
        assert services.ips.fetch(address).zone == "anew"


@pytest.mark.parametrize("number", NUMBERS)
def test_an_addition_is_not_repeated_while_the_address_is_deleted_again(
    proxy: FaultProxy,
    proxied_settings: Settings,
    services: Instance,
    pool: Database,
    address: str,
    request_id: str,
    second_attempt: Attempt,
    number: int,
) -> None:
    command = CreateIP(address, "us-east", "proxy1.example.com")

    def others() -> None:
        services.pool.create(command, request_id)
        services.pool.delete(DeleteIP(address), uuid4().hex)
        deleted.append(address)

    deleted: list[str] = []
    through = composition.build(proxied_settings)
    meanwhile(proxy, number, others)
    assert through.pool.create(command, request_id, attempt=second_attempt).address == address
    assert bool(pool.get_all([address])) != bool(deleted)


def test_an_assignment_is_not_repeated_after_the_address_was_added_again(
    services: Instance,
    add: Callable[..., DedicatedIP],
    add_again: Readdition,
    alice: Member,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), request_id)
    add_again(address)
    result = services.ips.assign(AssignIP(alice.id, address), request_id, attempt=second_attempt)
    assert result.assigned_to == alice.id
    assert services.ips.fetch(address).assigned_to is None


def test_the_result_of_a_transfer_of_a_single_address_that_has_a_key_is_returned(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
    address: str,
    request_id: str,
) -> None:
    add(address)
    services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    command, key = TransferIPs((address,), alice.id, bob.id), uuid4().hex
    for number in (1, 2):
        attempt = Attempt(key, number)
        [moved] = services.transfers.transfer(command, request_id, attempt=attempt)
        assert (moved.address, moved.assigned_to) == (address, bob.id)


def test_results_are_returned_although_the_address_was_deleted_since(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
    address: str,
    second_attempt: Attempt,
) -> None:
    add(address)
    assigned, released = uuid4().hex, uuid4().hex
    services.ips.assign(AssignIP(alice.id, address), assigned)
    services.ips.release(ReleaseIP(alice.id, address), released)
    services.pool.delete(DeleteIP(address), uuid4().hex)
    result = services.ips.assign(AssignIP(alice.id, address), assigned, attempt=second_attempt)
    assert (result.address, result.assigned_to) == (address, alice.id)
    result = services.ips.release(ReleaseIP(alice.id, address), released, attempt=second_attempt)
    assert (result.address, result.assigned_to) == (address, None)
    for command, request in ((ReleaseIP(bob.id, address), released),
                             (ReleaseIP(alice.id, address), uuid4().hex)):  # fmt: skip
        with pytest.raises(IPNotFound):
            services.ips.release(command, request, attempt=second_attempt)
    with pytest.raises(IPNotFound):
        services.ips.assign(AssignIP(bob.id, address), assigned, attempt=second_attempt)
    with pytest.raises(IPNotFound):
        services.ips.release(ReleaseIP(alice.id, address), released)


def test_the_result_of_an_addition_is_returned_after_the_address_was_added_again(
    services: Instance,
    add_again: Readdition,
    address: str,
    request_id: str,
    second_attempt: Attempt,
) -> None:
    command = CreateIP(address, "us-east", "proxy1.example.com")
    services.pool.create(command, request_id)
    add_again(address)
    result = services.pool.create(command, request_id, attempt=second_attempt)
    assert (result.zone, result.host) == ("us-east", "proxy1.example.com")
    assert services.ips.fetch(address).zone == "anew"


@pytest.mark.parametrize("quantity", [1, 2])
def test_the_result_of_an_allocation_is_returned(
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    request_id: str,
    quantity: int,
) -> None:
    for number in range(1, 5):
        add(f"192.0.2.{number}")
    key, command = uuid4().hex, AllocateIPs(alice.id, quantity)
    first = services.allocation.allocate(command, request_id, attempt=Attempt(key, 1))
    result = services.allocation.allocate(command, request_id, attempt=Attempt(key, 2))
    assert [ip.address for ip in result] == [ip.address for ip in first]
