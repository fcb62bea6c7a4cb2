"""The doctor finds each kind of problem, repairs it if possible, and then finds nothing."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest
from click.testing import CliRunner

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.cli import cli
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch, Database
from kazoo_ips.model import AssignIP, CreateIP, DedicatedIP, ReleaseIP
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import to_document
from kazoo_ips.repositories.ips import IPRepository
from kazoo_ips.repositories.lists import ListRepository
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import Action, TransactionLog
from kazoo_ips.services.maintenance.findings import PROBLEMS, Finding
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import proxied_settings, proxy, running_proxy
from tests.faults.proxy import FaultProxy, Forward, Reply
from tests.own_databases import own_databases

__all__ = ["proxied_settings", "proxy", "running_proxy"]

ADDRESS = "192.0.2.1"


@pytest.fixture
def later(settings: Settings) -> Instance:
    """The services with a clock that is five minutes ahead, so that no document is recent."""
    return composition.build(settings, clock=lambda: time.time() + 300)


@pytest.fixture
def assigned(add: Callable[..., DedicatedIP], services: Instance, alice: Member) -> DedicatedIP:
    """An address of Alice's."""
    add(ADDRESS)
    return services.ips.assign(AssignIP(alice.id, ADDRESS), uuid4().hex)


def problems(services: Instance, repair: bool = False) -> list[tuple[str, str, bool]]:
    found = services.doctor.examine(repair=repair)
    return [(f.problem, f.address, f.repaired) for f in found]


def assert_repairable(services: Instance, problem: str, address: str = ADDRESS) -> None:
    """Check that a problem is found, found again, repaired, and then not found."""
    assert problems(services) == [(problem, address, False)]
    assert problems(services, repair=True) == [(problem, address, True)]
    assert problems(services, repair=True) == []
    assert problems(services) == []


def test_a_healthy_pool_has_no_findings(later: Instance, assigned: DedicatedIP) -> None:
    assert problems(later) == []


def test_a_missing_copy_is_written(
    later: Instance, assigned: DedicatedIP, copies: Database
) -> None:
    copies.remove(ADDRESS, copies.get(ADDRESS)["_rev"])
    assert_repairable(later, "copy_missing")
    assert copies.get(ADDRESS)["pvt_request_id"] == assigned.request_id


def test_a_copy_that_cannot_be_written_is_not_repaired(
    proxied_settings: Settings, proxy: FaultProxy, assigned: DedicatedIP, copies: Database
) -> None:
    later = composition.build(proxied_settings, clock=lambda: time.time() + 300)
    copies.remove(ADDRESS, copies.get(ADDRESS)["_rev"])
    written = r"-account.*/(_bulk_docs|192\.0\.)"
    proxy.rule(faults.error_without_type, "PUT|POST", written, times=None)
    assert problems(later, repair=True) == [("copy_missing", ADDRESS, False)]


def test_a_stale_copy_is_written_again(
    later: Instance, assigned: DedicatedIP, copies: Database, alice: Member
) -> None:
    copies.put({**copies.get(ADDRESS), "pvt_modified": 1, "pvt_request_id": "old"})
    assert_repairable(later, "copy_stale")
    assert copies.get(ADDRESS)["pvt_modified"] == assigned.modified


def test_a_copy_of_an_available_address_is_removed(
    later: Instance, assigned: DedicatedIP, copies: Database, pool: Database
) -> None:
    document = pool.get(ADDRESS)
    del document["pvt_assigned_to"]
    pool.put({**document, "pvt_status": "available"})
    assert_repairable(later, "copy_extra")
    assert copies.find(ADDRESS) is None


def test_a_copy_of_an_unknown_address_is_removed(
    later: Instance, assigned: DedicatedIP, copies: Database, pool: Database
) -> None:
    pool.remove(ADDRESS, pool.get(ADDRESS)["_rev"])
    assert_repairable(later, "copy_extra")


def test_an_address_assigned_to_no_account_is_made_available(
    later: Instance, pool: Database, add: Callable[..., DedicatedIP]
) -> None:
    add(ADDRESS)
    pool.put({**pool.get(ADDRESS), "pvt_status": "assigned"})
    assert_repairable(later, "no_owner")
    assert pool.get(ADDRESS)["pvt_status"] == "available"


def test_an_unknown_owner_is_reported_and_not_repaired(
    later: Instance,
    pool: Database,
    add: Callable[..., DedicatedIP],
    environment: dict[str, str],
) -> None:
    add(ADDRESS)
    ghost = "0" * 32
    pool.put({**pool.get(ADDRESS), "pvt_status": "assigned", "pvt_assigned_to": ghost})
    assert problems(later, repair=True) == [("unknown_owner", ADDRESS, False)]
    result = CliRunner(env=environment).invoke(cli, ["release", "--account", ghost])
    assert (result.exit_code, result.output) == (0, f"released 1 IPs of {ghost}\n")
    assert problems(later) == []


DELETIONS = {
    "as Kazoo does": ("remove", "gone"),
    "by a mark": ("mark", "mark"),
    "but for its copy": ("keep", "gone"),
    "but for its database": ("remove", "mark"),
}
"""Ways in which an account is deleted: what happens to its copy in `accounts` and to its database.
"""


@pytest.mark.parametrize("how", DELETIONS)
def test_addresses_of_a_deleted_account_are_found_and_released(
    later: Instance,
    add: Callable[..., DedicatedIP],
    member: Callable[..., Member],
    operator: Member,
    services: Instance,
    couch: Couch,
    pool: Database,
    environment: dict[str, str],
    how: str,
) -> None:
    deleted_account = member("Gone", operator).id
    accounts, own = couch.database("accounts"), couch.database(account_database(deleted_account))
    add(ADDRESS)
    services.ips.assign(AssignIP(deleted_account, ADDRESS), uuid4().hex)
    in_accounts, of_database = DELETIONS[how]
    if in_accounts == "mark":
        accounts.put({**accounts.get(deleted_account), "pvt_deleted": True})
    elif in_accounts == "remove":
        accounts.remove(deleted_account, accounts.get(deleted_account)["_rev"])
    if of_database == "gone":
        own.delete()
    else:
        own.put({**own.get(deleted_account), "pvt_deleted": True})
    try:
        assert problems(later, repair=True) == [("unknown_owner", ADDRESS, False)]
        result = CliRunner(env=environment).invoke(cli, ["release", "--account", deleted_account])
        assert (result.exit_code, result.output) == (0, f"released 1 IPs of {deleted_account}\n")
        assert problems(later) == []
        assert pool.get(ADDRESS)["pvt_status"] == "available"
        assert of_database == "gone" or own.find(ADDRESS) is None
    finally:
        if in_accounts == "keep":
            accounts.remove(deleted_account, accounts.get(deleted_account)["_rev"])


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("2001:db8::1", "2001:DB8::1"),
        (ADDRESS, f"::ffff:{ADDRESS}"),
        (ADDRESS, "0:0:0:0:0:ffff:c000:201"),
    ],
)
def test_two_documents_of_one_address_are_reported(
    later: Instance, pool: Database, add: Callable[..., DedicatedIP], address: str, other: str
) -> None:
    add(address)
    document = pool.get(address)
    del document["_rev"]
    pool.put({**document, "_id": other})
    assert [p for p, _, _ in problems(later, repair=True)] == ["duplicate"]


def test_an_id_that_is_no_address_is_reported(later: Instance, pool: Database) -> None:
    pool.put({"_id": "junk", "pvt_type": "dedicated_ip", "pvt_status": "available"})
    assert problems(later, repair=True) == [("not_an_address", "junk", False)]


def test_an_assignment_whose_process_died_is_rolled_back(
    later: Instance,
    assigned: DedicatedIP,
    couch: Couch,
    alice: Member,
    copies: Database,
    pool: Database,
) -> None:
    transaction = TransactionLog(Records(couch)).begin(
        Action.ASSIGN, alice.id, assigned.request_id or "", assigned.modified, [ADDRESS]
    )
    pool.put({**pool.get(ADDRESS), "pvt_transaction": transaction.id})
    assert_repairable(later, "orphaned_transaction")
    assert pool.get(ADDRESS)["pvt_status"] == "available"
    assert copies.find(ADDRESS) is None


@pytest.mark.parametrize("digest", ["0", "f"], ids=["hidden", "shown"])
def test_a_conflict_is_resolved_to_the_account_with_the_copy(
    later: Instance,
    services: Instance,
    add: Callable[..., DedicatedIP],
    alice: Member,
    bob: Member,
    pool: Database,
    address: str,
    digest: str,
) -> None:
    """Before that, the doctor reports the copy of neither account as a problem."""
    base = add(address)
    services.ips.assign(AssignIP(alice.id, address), uuid4().hex)
    rival = {**pool.get(address), "pvt_assigned_to": bob.id, "pvt_request_id": "rival"}
    pool.graft({**rival, "_rev": f"2-{digest * 32}"}, parent=base.revision or "")
    assert_repairable(later, "conflict", address)
    assert pool.get(address)["pvt_assigned_to"] == alice.id


def test_an_address_that_all_writers_withdrew_is_restored(
    later: Instance, add: Callable[..., DedicatedIP], couch: Couch, alice: Member, pool: Database
) -> None:
    before = add(ADDRESS)
    repository = IPRepository(couch, ListRepository(couch))
    claim = before.assign(alice.id, at=before.modified, request_id="lost")
    claim = replace(claim, revision=repository.save(claim).revision)
    repository.withdraw(claim, before)
    assert pool.find(ADDRESS) is None
    assert_repairable(later, "withdrawn")
    assert pool.get(ADDRESS)["pvt_status"] == "available"
    assert "pvt_withdrawn" not in pool.get(ADDRESS)


def test_an_address_that_another_client_writes_to_is_not_restored(
    proxied_settings: Settings,
    proxy: FaultProxy,
    add: Callable[..., DedicatedIP],
    alice: Member,
    pool: Database,
    address: str,
) -> None:
    before = add(address)
    later = composition.build(proxied_settings, clock=lambda: time.time() + 300)
    repository = later.pool._ips
    claim = before.assign(alice.id, at=before.modified, request_id="lost")
    rival = {**to_document(claim), "pvt_request_id": "rival", "_rev": f"2-{'f' * 32}"}
    claim = replace(claim, revision=repository.save(claim).revision)
    repository.withdraw(claim, before)

    def written(forward: Forward) -> Reply:
        pool.graft(rival, parent=before.revision or "")
        return forward()

    # The doctor reads the document, then the resolver does, and then once more to restore it.
    proxy.rule(written, "GET", f"-dedicated_ips/{address}", first=3)
    found = problems(later, repair=True)
    assert found[0] == ("withdrawn", address, False)
    assert {problem for problem, _, _ in found[1:]} <= {"copy_missing"}  # of the other client
    assert pool.get(address)["_rev"] == rival["_rev"]
    pool.remove(address, rival["_rev"])


@pytest.mark.parametrize(
    "changes",
    [
        {"pvt_assigned_to": "0" * 32},
        {"pvt_assigned_to": ""},
        {"pvt_status": "parked"},
        {"pvt_status": "parked", "pvt_assigned_to": "0" * 32},
    ],
    ids=str,
)
def test_recent_documents_and_those_of_an_unknown_status_are_skipped(
    services: Instance,
    later: Instance,
    assigned: DedicatedIP,
    copies: Database,
    pool: Database,
    changes: dict[str, str],
) -> None:
    pool.put({**pool.get(ADDRESS), **changes})
    at_work = later if "pvt_status" in changes else services
    assert problems(at_work, repair=True) == []  # there is an extra copy
    assert copies.find(ADDRESS)
    copies.remove(ADDRESS, copies.get(ADDRESS)["_rev"])
    assert problems(services, repair=True) == []  # the copy is missing
    assert bool(problems(later)) == ("pvt_status" not in changes)


def test_a_copy_is_written_by_the_transaction_that_is_under_way(
    settings: Settings,
    assigned: DedicatedIP,
    couch: Couch,
    alice: Member,
    copies: Database,
) -> None:
    soon = composition.build(settings, clock=lambda: time.time() + 45)
    log, at = TransactionLog(Records(couch)), assigned.modified
    begun = log.begin(Action.ASSIGN, alice.id, "r", at, [ADDRESS])
    copies.remove(ADDRESS, copies.get(ADDRESS)["_rev"])
    assert problems(soon, repair=True) == []
    log.sweep([begun])
    assert problems(soon, repair=True) == [("copy_missing", ADDRESS, True)]


def test_an_address_that_is_released_meanwhile_has_no_finding(
    proxied_settings: Settings,
    proxy: FaultProxy,
    services: Instance,
    assigned: DedicatedIP,
    alice: Member,
) -> None:
    later = composition.build(proxied_settings, clock=lambda: time.time() + 300)

    def released(forward: Forward) -> Reply:
        services.ips.release(ReleaseIP(alice.id, ADDRESS), uuid4().hex)
        return forward()

    rule = proxy.rule(released, "GET|POST", rf"-account.*/({ADDRESS}|_bulk_get)")
    assert problems(later) == []
    assert rule.matched


def test_more_accounts_take_no_more_requests_to_the_pool(settings: Settings) -> None:
    """In databases of its own: the doctor reads a hundred accounts at once."""
    sent: list[str] = []

    def count(own: Settings) -> int:
        later = composition.build(
            own,
            clock=lambda: time.time() + 300,
            trace=lambda method, url: sent.append(f"{method} {url}"),
        )
        sent.clear()
        assert problems(later) == []
        return len(
            [each for each in sent if re.search(r"dedicated_ips/(_bulk_get|_design|\d)", each)]
        )

    with own_databases(settings) as own:
        services = composition.build(own)

        def give(number: int) -> None:
            account = services.accounts.create(f"Account {number}", f"a{number}.example.com")
            address = f"192.0.2.{number}"
            services.pool.create(CreateIP(address, "us-east", "proxy1.example.com"), uuid4().hex)
            services.ips.assign(AssignIP(account.id, address), uuid4().hex)

        give(1)
        before = count(own)
        for number in range(2, 7):
            give(number)
        assert count(own) == before > 0, sent


def test_what_is_checked_is_counted(
    later: Instance, add: Callable[..., DedicatedIP], assigned: DedicatedIP
) -> None:
    seen: list[int] = []
    assert list(later.doctor.examine(seen=seen.append)) == []
    assert sum(seen) == 1 + len(later.accounts.list())


def test_the_command_prints_a_table_or_json_and_its_status_says_whether_problems_remain(
    environment: dict[str, str], pool: Database, add: Callable[..., DedicatedIP]
) -> None:
    add(ADDRESS)
    document = pool.get(ADDRESS)
    pool.put({**document, "pvt_status": "assigned", "pvt_modified": 1})
    runner = CliRunner(env=environment)
    found = runner.invoke(cli, ["doctor"])
    assert found.exit_code == 1
    assert "| no_owner       | 192.0.2.1       |" in found.stdout
    as_json = runner.invoke(cli, ["doctor", "--json"])
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout) == [
        {"problem": "no_owner", "address": ADDRESS, "account_id": None, "repaired": False}
    ]
    assert runner.invoke(cli, ["doctor", "--repair"]).exit_code == 0
    healthy = runner.invoke(cli, ["doctor"])
    assert (healthy.exit_code, healthy.stdout.strip().splitlines()[-1]) == (0, "nothing found")


def test_every_problem_is_explained() -> None:
    assert all(PROBLEMS.values())
    assert Finding("conflict", ADDRESS).problem in PROBLEMS
