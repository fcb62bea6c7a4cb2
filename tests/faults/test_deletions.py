"""The outcome of a deletion that CouchDB has not confirmed, and the checks that follow it."""

from collections.abc import Callable
from uuid import uuid4

import pytest

from kazoo_ips import app as composition
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import Conflict, DatastoreUnreachable
from kazoo_ips.model import AssignIP, DedicatedIP, DeleteIP
from kazoo_ips.repositories.accounts import account_database
from kazoo_ips.repositories.documents import to_document
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import Fault, FaultProxy, Forward, Hangup, Reply

POOL = "-dedicated_ips"
HIGH = "f" * 32


class Deletion:
    """An address of Alice's, and a worker behind the proxy that deletes it by force."""

    def __init__(
        self, proxy: FaultProxy, services: Instance, couch: Couch, assigned: DedicatedIP
    ) -> None:
        self.proxy = proxy
        self.services = services
        self.pool = couch.database("dedicated_ips")
        self.copies = couch.database(account_database(assigned.assigned_to or ""))
        self.address = assigned.address

    def cause(self, *met: Fault) -> None:
        """Apply the first fault to the next write of the document, the second to the next, …"""
        for number, fault in enumerate(met, 1):
            self.proxy.rule(fault, "PUT", f"{POOL}/{self.address}", first=number)

    def on_a_cluster(self) -> None:
        """Let the database say that it has three copies of each document."""
        self.proxy.rule(faults.three_copies, "GET", f"{POOL}/?$", times=None)

    def run(self) -> DedicatedIP:
        command = DeleteIP(self.address, force=True)
        return self.services.pool.delete(command, uuid4().hex)

    def delete_elsewhere(self, forward: Forward) -> Reply:
        """A fault: another client deletes the address, and this request is not sent."""
        self.pool.remove(self.address, self.pool.get(self.address)["_rev"])
        return faults.cut(forward)

    def add_again(self, forward: Forward) -> Reply:
        """A fault: another client adds the address after the deletion."""
        reply = forward()
        self.pool.put({"_id": self.address, "pvt_type": "dedicated_ip"})
        return reply

    def hide(self, forward: Forward) -> Reply:
        """A fault: the reply is lost, and another writer's revision hides the deletion."""
        before = self.pool.get(self.address)
        forward()
        self.pool.graft({**before, "_rev": f"3-{HIGH}"}, parent=before["_rev"])
        raise Hangup

    @property
    def left(self) -> tuple[bool, bool]:
        """Return whether the pool has the address, and whether Alice's account has a copy."""
        return tuple(d.find(self.address) is not None for d in (self.pool, self.copies))


@pytest.fixture
def deletion(
    proxy: FaultProxy,
    proxied_settings: Settings,
    services: Instance,
    couch: Couch,
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> Deletion:
    # Each test has an address of its own: old revisions would be leaves in the next test.
    ip = add(f"2001:db8:{uuid4().int % 65536:x}::{uuid4().int % 65536:x}")
    assigned = services.ips.assign(AssignIP(alice.id, ip.address), uuid4().hex)
    return Deletion(proxy, composition.build(proxied_settings), couch, assigned)


@pytest.mark.parametrize(
    "met",
    [(), (faults.lose_reply,), (faults.cut,), (faults.cut, faults.lose_reply)],
    ids=["confirmed", "reply lost", "not sent", "not sent, then reply lost"],
)
def test_a_deletion_that_shows_among_the_leaves_is_done(
    deletion: Deletion, met: tuple[Fault, ...]
) -> None:
    deletion.cause(*met)
    assert deletion.run().assigned_to is None
    assert deletion.left == (False, False)


@pytest.mark.parametrize(
    "met",
    [(faults.answer_202,), (faults.cut, faults.answer_202), (faults.cut, faults.cut)],
    ids=["no quorum", "not sent, then no quorum", "not sent twice"],
)
def test_an_address_stays_if_its_deletion_has_no_quorum(
    deletion: Deletion, alice: Member, met: tuple[Fault, ...]
) -> None:
    deletion.cause(*met)
    with pytest.raises(DatastoreUnreachable):
        deletion.run()
    assert deletion.pool.get(deletion.address)["pvt_assigned_to"] == alice.id
    assert deletion.left == (True, True)


def test_a_deletion_is_done_although_the_address_is_added_again(deletion: Deletion) -> None:
    deletion.cause(faults.cut, deletion.add_again)
    assert deletion.run().assigned_to is None
    assert deletion.left == (True, False)
    deletion.pool.remove(deletion.address, deletion.pool.get(deletion.address)["_rev"])


def test_a_deletion_that_another_revision_hides_is_not_reported(deletion: Deletion) -> None:
    deletion.cause(deletion.hide)
    with pytest.raises(DatastoreUnreachable):
        deletion.run()
    assert deletion.left == (True, True)
    deletion.pool.remove(deletion.address, f"3-{HIGH}")


def test_a_deletion_by_another_client_is_not_reported_as_this_one(deletion: Deletion) -> None:
    deletion.cause(deletion.delete_elsewhere)
    with pytest.raises(DatastoreUnreachable):
        deletion.run()
    assert not deletion.left[0]


def test_a_write_of_another_client_before_the_deletion_is_a_conflict(deletion: Deletion) -> None:
    def written(forward: Forward) -> Reply:
        document = deletion.pool.get(deletion.address)
        deletion.pool.put({**document, "pvt_zone": "eu-west"})
        return forward()

    deletion.cause(written)
    with pytest.raises(Conflict):
        deletion.run()
    assert deletion.pool.get(deletion.address)["pvt_zone"] == "eu-west"


def test_the_copy_of_an_address_whose_deletion_is_uncertain_is_removed_later(
    deletion: Deletion,
) -> None:
    deletion.cause(faults.lose_reply)
    read_back = f"{POOL}/{deletion.address}"
    deletion.proxy.rule(faults.error_without_type, "GET", read_back, first=2, times=None)
    with pytest.raises(DatastoreUnreachable):
        deletion.run()
    assert deletion.left == (False, True)
    deletion.proxy.clear()
    assert deletion.services.background.check_due(now=1e12) == 1
    assert deletion.left == (False, False)


@pytest.mark.parametrize("cluster", [False, True])
def test_on_a_cluster_an_earlier_state_beside_a_deletion_is_dropped_later(
    deletion: Deletion, cluster: bool
) -> None:
    """A node that lagged has accepted a write on the revision before the deletion."""
    if cluster:
        deletion.on_a_cluster()
    before = deletion.pool.get(deletion.address)
    earlier = to_document(deletion.services.ips.fetch(deletion.address))
    deletion.run()
    deletion.pool.graft({**earlier, "_rev": f"3-{HIGH}"}, parent=before["_rev"])
    assert deletion.left == (True, False)
    assert deletion.services.background.check_due(now=1e12) == cluster
    assert deletion.left == (not cluster, False)
    if not cluster:
        deletion.pool.remove(deletion.address, f"3-{HIGH}")
