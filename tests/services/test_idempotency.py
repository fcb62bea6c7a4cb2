"""Idempotency records: conflicting revisions on a cluster, and the owners of keys."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreUnreachable, IdempotencyMismatch, InProgress
from kazoo_ips.model import AssignIPs, DedicatedIP, ReleaseIPs
from kazoo_ips.processes import liveness
from kazoo_ips.repositories.idempotency_records import (
    IdempotencyRecord,
    IdempotencyRecords,
    record_id,
)
from kazoo_ips.repositories.records import Records
from kazoo_ips.repositories.transaction_log import TransactionLog
from kazoo_ips.services.assigning.recovery import LEASE
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.conftest import proxied_settings, proxy, running_proxy
from tests.faults.proxy import Fault, FaultProxy, Forward, Reply

__all__ = ["proxied_settings", "proxy", "running_proxy"]

HIGH = "f" * 32


@pytest.fixture
def begin(services: Instance) -> Callable[..., IdempotencyRecord]:
    def begin(key: str, caller: str = "Alice", asked: str = "this") -> IdempotencyRecord:
        return services.idempotency.begin(caller, None, key, asked, uuid4().hex)

    return begin


def test_a_revision_with_a_reply_wins_over_a_later_one_without(
    begin: Callable[..., IdempotencyRecord], services: Instance, couch: Couch
) -> None:
    key = uuid4().hex
    begun = begin(key)
    services.idempotency.finish(begun, {"status": 200})
    database = couch.database("kazoo_ips")
    document = {**database.get(f"reply-{begun.id}"), "reply": None}
    database.graft({**document, "_rev": f"2-{HIGH}"}, parent=begun.revision or "")
    database.put({**document, "_rev": f"2-{HIGH}"})
    known = begin(key)
    assert known.reply == {"status": 200}


def test_without_a_reply_the_later_attempt_wins(
    begin: Callable[..., IdempotencyRecord], couch: Couch
) -> None:
    begun = begin(uuid4().hex)
    database = couch.database("kazoo_ips")
    revisions = [begun.revision]
    for attempt in range(2, 11):
        document = database.get(f"reply-{begun.id}")
        revisions.append(database.put({**document, "attempt": attempt}).revision)
    aside = {**document, "attempt": 99, "_rev": f"9-{HIGH}"}
    database.graft(aside, parent=revisions[7] or "")
    known = IdempotencyRecords(Records(couch)).find(begun.id)
    assert known
    assert known.attempt == 99


def test_of_two_revisions_of_an_attempt_the_one_that_has_ended_wins(
    begin: Callable[..., IdempotencyRecord], services: Instance, couch: Couch
) -> None:
    key = uuid4().hex
    begun = begin(key)
    database = couch.database("kazoo_ips")
    running = database.get(f"reply-{begun.id}")
    services.idempotency.abandon(begun)
    database.graft({**running, "_rev": f"9-{HIGH}"}, parent=f"8-{HIGH}")
    assert begin(key).attempt == 2


@pytest.mark.parametrize("claims", [1, 2])
def test_a_key_stays_known_if_all_later_claims_of_it_were_withdrawn(
    begin: Callable[..., IdempotencyRecord], services: Instance, couch: Couch, claims: int
) -> None:
    key, records = uuid4().hex, Records(couch)
    begun = begin(key)
    services.idempotency.abandon(begun)
    before = couch.database("kazoo_ips").get(f"reply-{begun.id}")
    claimed = begin(key)
    if claims == 2:
        rival = {**before, "attempt": 2, "_rev": f"3-{HIGH}"}
        couch.database("kazoo_ips").graft(rival, parent=before["_rev"])
    assert claimed.attempt == 2
    records.drop(records.leaves(f"reply-{begun.id}"))
    again = begin(key)
    assert (again.attempt, again.request_id) == (3, begun.request_id)
    services.idempotency.finish(again, {"status": 201})
    assert begin(key).reply == {"status": 201}


def test_a_key_is_new_again_after_its_record_was_swept(
    begin: Callable[..., IdempotencyRecord], couch: Couch
) -> None:
    key, records = uuid4().hex, Records(couch)
    begun = begin(key)
    name = f"reply-{begun.id}"
    rival = {**couch.database("kazoo_ips").get(name), "_rev": f"1-{HIGH}"}
    couch.database("kazoo_ips").replicate(rival)
    records.drop([leaf for leaf in records.leaves(name) if leaf["_rev"] == f"1-{HIGH}"])
    records.remove(records.leaves(name))
    assert begin(key).attempt == 1


def test_each_caller_has_keys_of_its_own(begin: Callable[..., IdempotencyRecord]) -> None:
    key = uuid4().hex
    assert begin(key, "Alice").id != begin(key, "Bob").id


def test_a_key_used_again_after_its_expiry_has_new_attempts() -> None:
    first = IdempotencyRecord(record_id("Alice", "key"), "", "", 1, 1, 1, "")
    assert first.current != replace(first, created=2).current


def test_a_key_is_in_progress_until_its_attempt_ends(
    begin: Callable[..., IdempotencyRecord], services: Instance
) -> None:
    key = uuid4().hex
    begun = begin(key)
    with pytest.raises(InProgress):
        begin(key)
    with pytest.raises(IdempotencyMismatch):
        begin(key, asked="that")
    services.idempotency.abandon(begun)
    again = begin(key)
    assert (again.attempt, again.request_id) == (2, begun.request_id)
    services.idempotency.finish(again, {"status": 201})
    with pytest.raises(IdempotencyMismatch):
        begin(key, asked="that")
    known = begin(key)
    assert (known.reply, known.attempt) == ({"status": 201}, 2)


@pytest.mark.parametrize("ended", [False, True])
def test_an_attempt_taken_for_dead_returns_the_reply_of_the_later_one(
    begin: Callable[..., IdempotencyRecord], services: Instance, ended: bool
) -> None:
    begun = begin(uuid4().hex)
    later = services.idempotency._records.put(replace(begun, attempt=2))
    assert later
    if ended:
        services.idempotency.finish(later, {"status": 200})
        assert services.idempotency.finish(begun, {"status": 409}) == {"status": 200}
    else:
        with pytest.raises(InProgress):
            services.idempotency.finish(begun, {"status": 409})


def test_a_key_is_new_again_after_a_day(
    begin: Callable[..., IdempotencyRecord], services: Instance, settings: Settings
) -> None:
    key = uuid4().hex
    services.idempotency.finish(begin(key), {"status": 200})
    later = composition.build(settings, clock=lambda: time.time() + 25 * 3600)
    request_id = uuid4().hex
    begun = later.idempotency.begin("Alice", None, key, "that", request_id)
    assert (begun.reply, begun.request_id, begun.attempt) == (None, request_id, 1)


def test_a_reply_is_returned_although_its_record_is_deleted(
    begin: Callable[..., IdempotencyRecord], services: Instance, couch: Couch
) -> None:
    begun = begin(uuid4().hex)
    Records(couch).remove([{"_id": f"reply-{begun.id}", "_rev": begun.revision}])
    assert services.idempotency.finish(begun, {"status": 200}) == {"status": 200}


def test_one_of_two_attempts_at_the_same_moment_claims_the_key(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    operator: Member,
) -> None:
    key, worker = uuid4().hex, composition.build(proxied_settings)

    def begins(forward: Forward) -> Reply:
        begin(key)
        return forward()

    proxy.rule(begins, "PUT", "-kazoo_ips/reply-")
    with pytest.raises(InProgress):
        worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)


def test_the_key_of_a_dead_worker_can_be_claimed_at_once(
    begin: Callable[..., IdempotencyRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = uuid4().hex
    begin(key)
    monkeypatch.setattr(liveness, "is_dead", lambda worker: True)
    assert begin(key).attempt == 2


@pytest.mark.parametrize("fault", [faults.cut, faults.lose_reply], ids=["not sent", "written"])
def test_an_uncertain_claim_of_a_key_is_cancelled_after_the_outage(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    operator: Member,
    fault: Fault,
) -> None:
    key, services = uuid4().hex, composition.build(proxied_settings)
    proxy.rule(fault, "PUT", "-kazoo_ips/reply-", times=None)
    proxy.rule(faults.error_without_type, "GET", "-kazoo_ips/reply-.*", first=2, times=None)
    with pytest.raises(DatastoreUnreachable):
        services.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.clear()
    services.background.work()
    assert begin(key).reply is None


def test_an_uncertain_claim_is_cancelled_although_a_lagging_replica_did_not_show_it(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    services: Instance,
    couch: Couch,
) -> None:
    key, worker = uuid4().hex, composition.build(proxied_settings)
    services.idempotency.abandon(begin(key))
    database, name = couch.database("kazoo_ips"), f"reply-{record_id('Alice/', key)}"
    before = database.get(name)
    proxy.rule(faults.lose_reply, "PUT", name, times=1)
    proxy.rule(faults.error_without_type, "GET", f"{name}.*", first=2, times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.clear()
    proxy.rule(faults.lagging(before), "GET", f"{name}.*", times=2)
    worker.background.work()
    with pytest.raises(InProgress):
        begin(key)
    worker.background.work()
    assert begin(key).reply is None


@pytest.fixture
def uncertain_claim(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    services: Instance,
) -> tuple[str, Instance]:
    """A key whose first attempt has ended, and a worker that did not learn whether it made the
    second one.
    """
    key, worker = uuid4().hex, composition.build(proxied_settings)
    services.idempotency.abandon(begin(key))
    proxy.rule(faults.cut, "PUT", "-kazoo_ips/reply-", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.clear()
    return key, worker


def test_the_cancelling_of_a_claim_leaves_an_attempt_alone_that_began_meanwhile(
    uncertain_claim: tuple[str, Instance],
    begin: Callable[..., IdempotencyRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key, worker = uncertain_claim
    monkeypatch.setattr(liveness, "identity", lambda: "elsewhere/another process")
    assert begin(key).attempt == 2
    assert worker.background.work() == 1
    with pytest.raises(InProgress):
        begin(key)


def test_an_uncertain_claim_on_an_ended_attempt_is_cancelled(
    uncertain_claim: tuple[str, Instance], begin: Callable[..., IdempotencyRecord]
) -> None:
    key, worker = uncertain_claim
    assert worker.background.work() == 1
    assert begin(key).attempt == 3  # CouchDB would refuse a late write of the second attempt


@pytest.mark.parametrize("arrives", [False, True])
def test_a_claim_that_another_request_has_made_is_cancelled_when_it_arrives_or_its_lease_ends(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    couch: Couch,
    operator: Member,
    arrives: bool,
) -> None:
    key, ahead = uuid4().hex, [0]
    worker = composition.build(proxied_settings, clock=lambda: time.time() + ahead[0])
    proxy.rule(faults.cut, "PUT", "-kazoo_ips/reply-", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    sent = next(r.request for r in proxy.records if r.request.method == "PUT")
    proxy.clear()
    claimed = begin(key)
    assert worker.background.work() == 0
    database, name = couch.database("kazoo_ips"), f"reply-{claimed.id}"
    if arrives:
        late = {**json.loads(sent.body), "_id": name, "_rev": f"2-{HIGH}"}
        database.graft(late, parent=f"1-{HIGH}")
    else:
        ahead[0] = LEASE + 1
    assert worker.background.work() == 1
    found = [d["request_id"] for d in database.leaves(name) if "_deleted" not in d]
    assert found == [claimed.request_id]


def test_the_reply_of_an_attempt_that_its_own_worker_has_ended_is_returned(
    proxy: FaultProxy,
    proxied_settings: Settings,
    settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    services: Instance,
) -> None:
    """Two threads claim one attempt in one second. The thread with an unknown outcome ends it."""
    key, now = uuid4().hex, time.time()
    one = composition.build(settings, clock=lambda: now).idempotency
    other = composition.build(proxied_settings, clock=lambda: now)
    services.idempotency.abandon(begin(key))
    proxy.rule(faults.cut, "PUT", "-kazoo_ips/reply-", times=None)
    with pytest.raises(DatastoreUnreachable):
        other.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.clear()
    begun = one.begin("Alice", None, key, "this", uuid4().hex)
    assert other.background.work() == 1
    assert one.finish(begun, {"status": 200}) == {"status": 200}


def test_a_claim_of_a_key_whose_record_was_swept_is_cancelled(
    proxy: FaultProxy,
    proxied_settings: Settings,
    settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    services: Instance,
) -> None:
    key, worker = uuid4().hex, composition.build(proxied_settings)
    services.idempotency.finish(begin(key), {"status": 200})
    in_a_day = composition.build(settings, clock=lambda: time.time() + 25 * 3600)
    assert services.idempotency.sweep() == 0
    assert in_a_day.idempotency.sweep()
    assert in_a_day.idempotency.sweep() == 0
    proxy.rule(faults.cut, "PUT", "-kazoo_ips/reply-", times=None)
    with pytest.raises(DatastoreUnreachable):
        worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.clear()
    assert worker.background.work() == 1
    assert begin(key).attempt == 2  # CouchDB would refuse a late write of the first attempt


def test_two_uncertain_attempts_are_both_ended(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    operator: Member,
) -> None:
    key, worker = uuid4().hex, composition.build(proxied_settings)
    name = f"reply-{record_id('Alice/', key)}"
    first = worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.rule(faults.cut, "PUT", name, times=None)
    worker.idempotency.abandon(first)
    proxy.rule(faults.lagging(), "GET", f"{name}.*", times=None)  # as on a node that is cut off
    with pytest.raises(DatastoreUnreachable):
        worker.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.clear()
    worker.background.work()
    assert begin(key).attempt == 2


def test_two_uncertain_claims_of_one_request_are_both_cancelled(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    operator: Member,
) -> None:
    """The second claim is made on another node, which has not got the first one."""
    key, request_id, clock = uuid4().hex, uuid4().hex, [time.time()]
    worker = composition.build(proxied_settings, clock=lambda: clock[0])
    name = f"reply-{record_id('Alice/', key)}"
    for fault in (faults.lose_reply, faults.cut):
        proxy.rule(fault, "PUT", name, times=None)
        proxy.rule(faults.lagging(), "GET", f"{name}.*", times=2)
        proxy.rule(faults.error_without_type, "GET", f"{name}.*", first=3, times=None)
        with pytest.raises(DatastoreUnreachable):
            worker.idempotency.begin("Alice", None, key, "this", request_id)
        proxy.clear()
        clock[0] += 5
    worker.background.work()
    assert begin(key).reply is None


def test_a_certain_attempt_wins_over_an_uncertain_one(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    services: Instance,
    couch: Couch,
) -> None:
    """Two first attempts were written on separated nodes. The one that has written continues."""
    key, worker = uuid4().hex, composition.build(proxied_settings)
    certain = begin(key)
    database, name = couch.database("kazoo_ips"), f"reply-{record_id('Alice/', key)}"
    [sure] = database.leaves(name)
    uncertain = {**sure, "_rev": f"9-{HIGH}", "request_id": "another", "created": 1}
    unsure = replace(certain, request_id="another", created=1, revision=f"9-{HIGH}")
    database.graft(uncertain, parent=f"8-{HIGH}")
    worker.idempotency._cancel_claim(unsure)
    assert [d["request_id"] for d in database.leaves(name) if "_deleted" not in d] == [
        certain.request_id
    ]
    services.idempotency.abandon(certain)
    again = begin(key)
    assert (again.request_id, again.attempt) == (certain.request_id, 2)


def test_a_reply_is_stored_after_the_outage(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    operator: Member,
) -> None:
    key, services = uuid4().hex, composition.build(proxied_settings)
    begun = services.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.rule(faults.cut, "PUT|GET", "-kazoo_ips/reply-", times=None)
    assert services.idempotency.finish(begun, {"status": 200}) == {"status": 200}
    with pytest.raises(InProgress):
        begin(key)
    proxy.clear()
    services.background.work()
    assert begin(key).reply == {"status": 200}


def test_a_refusal_is_not_replied_while_it_is_unknown_whether_it_is_stored(
    proxy: FaultProxy,
    proxied_settings: Settings,
    begin: Callable[..., IdempotencyRecord],
    operator: Member,
) -> None:
    key, services = uuid4().hex, composition.build(proxied_settings)
    begun = services.idempotency.begin("Alice", None, key, "this", uuid4().hex)
    proxy.rule(faults.cut, "PUT", "-kazoo_ips/reply-", times=None)
    # The worker may die before it stores the reply. Then a later attempt decides anew.
    with pytest.raises(DatastoreUnreachable):
        services.idempotency.finish(begun, {"status": 409})
    proxy.clear()
    services.background.work()
    assert begin(key).reply == {"status": 409}


def test_the_record_of_a_transaction_stays_until_the_reply_is_stored(
    begin: Callable[..., IdempotencyRecord],
    services: Instance,
    couch: Couch,
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> None:
    log, addresses = TransactionLog(Records(couch)), ("192.0.2.1", "192.0.2.2")
    for address in addresses:
        add(address)
    begun = begin(uuid4().hex)
    command = AssignIPs(alice.id, addresses)
    services.ips.assign_all(command, begun.request_id, attempt=begun.current)
    name = f"assign-{begun.current.key}-1"
    services.idempotency.finish(begun, {"status": 200})
    services.background.work()
    assert log.find(name) is None
    begun = begin(uuid4().hex)
    services.ips.release_all(
        ReleaseIPs(alice.id, addresses), begun.request_id, attempt=begun.current
    )
    services.idempotency.abandon(begun)
    services.background.work()
    assert log.find(f"release-{begun.current.key}-1")
