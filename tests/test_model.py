"""The rules of a dedicated IP and the permissions of callers, without a database."""

import dataclasses
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips import model
from kazoo_ips.errors import (
    AlreadyAssigned,
    AssignedToAnother,
    NotAssigned,
    RuleBroken,
    UnknownStatus,
)
from kazoo_ips.model import (
    GREGORIAN_EPOCH,
    TRAIL_LENGTH,
    Account,
    Caller,
    DedicatedIP,
    Event,
    Leaves,
    Status,
    Trail,
    Withdrawal,
)
from kazoo_ips.model.history import State
from kazoo_ips.model.revisions import Branches
from kazoo_ips.model.trail import Origin

IP = DedicatedIP(
    "192.0.2.1",
    "us-east",
    "proxy1.example.com",
    created=1,
    modified=1,
    revision="1-a",
    source={"x": 1},
)
NOW = GREGORIAN_EPOCH + 10**9
ALICES = replace(IP, status=Status.ASSIGNED, assigned_to="alice")
NOBODYS = replace(IP, status=Status.ASSIGNED, assigned_to=None)

ids = st.text("0123456789abcdef", min_size=1, max_size=4)
times = st.integers(GREGORIAN_EPOCH, GREGORIAN_EPOCH + 10**10)
ips = st.builds(
    DedicatedIP,
    address=st.just("192.0.2.1"),
    zone=st.text(max_size=5),
    host=st.text(max_size=5),
    created=times,
    modified=times,
    request_id=st.none() | ids,
    revision=st.none() | ids.map("1-{}".format),
    source=st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@given(ips, ids, times)
def test_a_copy_has_other_values_of_the_given_fields_only(
    ip: DedicatedIP, account_id: str, at: int
) -> None:
    before = dataclasses.asdict(ip)
    copy = model.replace(ip, assigned_to=account_id, modified=at)
    assert dataclasses.asdict(copy) == before | {"assigned_to": account_id, "modified": at}
    assert dataclasses.asdict(ip) == before
    with pytest.raises(FrozenInstanceError):
        copy.zone = "x"  # type: ignore[misc]


def test_a_copy_has_no_unknown_field() -> None:
    with pytest.raises(TypeError, match="no field owner"):
        model.replace(IP, owner="alice")


@given(ips, ids, times)
def test_assign_changes_status_owner_time_and_request_only(
    ip: DedicatedIP, account_id: str, at: int
) -> None:
    assert ip.assign(account_id, at=at, request_id="r") == replace(
        ip, status=Status.ASSIGNED, assigned_to=account_id, modified=at, request_id="r"
    )


@given(ips, ids, times, times)
def test_release_undoes_assign(ip: DedicatedIP, account_id: str, then: int, now: int) -> None:
    assigned = ip.assign(account_id, at=then, request_id="r")
    for by in (account_id, None):
        released = assigned.release(by, at=now, request_id="s")
        assert released == replace(ip, modified=now, request_id="s")
        assert released.source is ip.source


@given(ips, ids, ids)
def test_an_assigned_address_cannot_be_assigned_again(
    ip: DedicatedIP, owner: str, account_id: str
) -> None:
    assigned = ip.assign(owner, at=1, request_id="r")
    with pytest.raises(AlreadyAssigned if owner == account_id else AssignedToAnother):
        assigned.assign(account_id, at=2, request_id="s")


@given(ips, ids | st.none())
def test_an_available_address_cannot_be_released(ip: DedicatedIP, by: str | None) -> None:
    with pytest.raises(NotAssigned):
        ip.release(by, at=1, request_id="r")


def test_release_refuses_an_address_of_another_account() -> None:
    with pytest.raises(AssignedToAnother):
        ALICES.release("bob", at=1, request_id="r")


def test_the_operator_releases_any_address() -> None:
    assert ALICES.release(None, at=1, request_id="r").status is Status.AVAILABLE
    assert NOBODYS.release(None, at=1, request_id="r").status is Status.AVAILABLE


def test_an_address_without_a_known_owner_can_be_neither_assigned_nor_released() -> None:
    with pytest.raises(AssignedToAnother):
        NOBODYS.assign("alice", at=1, request_id="r")
    with pytest.raises(AssignedToAnother):
        NOBODYS.release("alice", at=1, request_id="r")


@pytest.mark.parametrize("owner", [None, "alice"])
def test_an_address_of_an_unknown_status_is_neither_assigned_nor_released(
    owner: str | None,
) -> None:
    resting = replace(IP, status="parked", assigned_to=owner)
    for by in ("alice", "bob", None):
        with pytest.raises(UnknownStatus, match="parked"):
            resting.release(by, at=2, request_id="r")
    for to in ("alice", "bob"):
        with pytest.raises(UnknownStatus, match="parked"):
            resting.assign(to, at=2, request_id="r")


def test_a_transition_leaves_the_address_it_started_from_as_it_was() -> None:
    IP.assign("alice", at=2, request_id="r")
    ALICES.release("alice", at=2, request_id="r")
    assert (IP.status, IP.modified) == (Status.AVAILABLE, 1)
    assert (ALICES.status, ALICES.assigned_to) == (Status.ASSIGNED, "alice")
    with pytest.raises(FrozenInstanceError):
        IP.zone = "elsewhere"  # type: ignore[misc]


@pytest.mark.parametrize("broken", RuleBroken.__subclasses__())
def test_a_broken_rule_has_crossbars_text(broken: type[RuleBroken]) -> None:
    assert broken.rule in ("superfluous", "forbidden", "not_found")
    assert broken.message.startswith("ip ")
    assert "192.0.2.1" in str(broken("192.0.2.1"))


# The account tree.


@st.composite
def trees(draw: st.DrawFn) -> list[Account]:
    """Accounts in a tree. The first is the operator; each other one is below an earlier one."""
    made = [Account("0", "Operator", "0.example.com", (), operator=True)]
    for number in range(1, draw(st.integers(1, 8))):
        parent = draw(st.sampled_from(made))
        made.append(Account(str(number), "", "", (*parent.tree, parent.id)))
    return made


@given(trees())
def test_an_account_sees_itself_and_its_descendants(tree: list[Account]) -> None:
    for account in tree:
        seen = {other.id for other in tree if Caller(account).may_see(other)}
        below = {other.id for other in tree if account.id in (other.id, *other.tree)}
        assert seen == below


@given(trees())
def test_the_operator_sees_every_account(tree: list[Account]) -> None:
    stranger = Account("f", "", "", ())
    assert all(Caller(tree[0]).may_see(account) for account in [*tree, stranger])
    assert not any(Caller(stranger).may_see(account) for account in tree)


@given(times, times)
def test_an_account_is_active_until_it_expires(now: int, expires: int) -> None:
    account = Account("a", "", "", (), expires=expires)
    assert account.is_active(now) == (now < expires)
    assert not replace(account, enabled=False).is_active(now)
    assert replace(account, expires=None).is_active(now)


def kinds(ip: DedicatedIP) -> list[tuple[str, str | None]]:
    return [(event.kind.value, event.account_id) for event in ip.trail]


def test_an_undo_replaces_the_assignment_in_the_trail() -> None:
    ip = IP.assign("alice", at=2, request_id="a").release(None, at=3, request_id="b")
    undone = ip.assign("bob", at=4, request_id="c").undo()
    assert kinds(undone) == [*kinds(ip), ("undone", "bob")]
    assert (undone.status, undone.assigned_to) == (Status.AVAILABLE, None)
    assert undone.accounts == {"alice", "bob"}


@pytest.mark.parametrize("gap", [1, 3600, 24 * 3600])
def test_a_release_is_recognised_by_the_trail_of_its_assignment(gap: int) -> None:
    ip, at = replace(IP, trail=()), NOW
    assigned, released = [], []
    for number in range(TRAIL_LENGTH):
        account_id = ("alice", "bob")[number % 2]
        assigned.append(ip.assign(account_id, at=at, request_id=f"{number}"))
        ip = assigned[-1].release(None, at=at + gap, request_id=f"{number}")
        released.append(ip)
        at += gap + 1
    for number, release in enumerate(released):
        assert release.follows_release_of(assigned[number])
        assert not any(map(release.follows_release_of, assigned[number + 1 :]))
        for earlier in range(number):
            if released[earlier].trail[-1] in release.trail:
                assert release.follows_release_of(assigned[earlier])
    for earlier, later in pairwise(range(TRAIL_LENGTH)):
        if released[earlier].trail[-1] in assigned[later].trail:
            assert assigned[later].follows_release_of(assigned[earlier])
    assert not assigned[0].follows_release_of(assigned[0])
    assert not IP.follows_release_of(ALICES)


def test_an_assignment_by_kazoo_after_a_release_is_another_one() -> None:
    """Kazoo's nodes keep the trail and add nothing to it."""
    released = IP.assign("alice", at=NOW, request_id="a").release(None, at=NOW, request_id="b")
    assigned = replace(released, status=Status.ASSIGNED, assigned_to="alice")
    assert not released.follows_release_of(assigned)


def event(kind: str, generation: int, account_id: str | None = "alice", **fields: Any) -> Event:
    return Event(kind, account_id, NOW + generation, f"r{generation}", generation, **fields)


ASSIGNED, RELEASED = event("assigned", 2), event("released", 4)
FOUND = event("found", 3, state=State("assigned", "alice", "z", "h"))
TO_BOB = event("transferred", 4, "bob", origin=Origin("assigned", "alice"))


@pytest.mark.parametrize(
    ("assigned", "since", "released"),
    [
        ((event("created", 1), ASSIGNED), (ASSIGNED, RELEASED), True),
        ((ASSIGNED, FOUND), (ASSIGNED, RELEASED), True),
        ((ASSIGNED,), (ASSIGNED, RELEASED._replace(origin=Origin("assigned", "alice"))), True),
        ((ASSIGNED,), (ASSIGNED, TO_BOB), True),
        ((ASSIGNED,), (ASSIGNED, TO_BOB._replace(origin=Origin("assigned", "carol"))), False),
        ((ASSIGNED,), (ASSIGNED, TO_BOB._replace(origin=None)), False),
        (
            (event("created", 1), ASSIGNED),
            (event("created", 1), ASSIGNED._replace(request_id="another"), RELEASED),
            False,
        ),
        (
            (ASSIGNED, event("found", 3, "bob"), event("found", 4)),
            (ASSIGNED, RELEASED),
            False,
        ),
    ],
    ids=[
        "earlier events are gone", "an older release saved it again", "a release with an origin",
        "a transfer", "a transfer of another account's", "a transfer that does not say whose",
        "a release of another assignment", "another program gave it away and back",
    ],
)  # fmt: skip
def test_a_release_of_an_assignment_is_recognised(
    assigned: Trail, since: Trail, released: bool
) -> None:
    alices = replace(ALICES, trail=assigned)
    assert replace(IP, trail=since).follows_release_of(alices) is released


def test_the_accounts_of_an_address_include_those_that_only_an_origin_names() -> None:
    assert replace(IP, trail=(TO_BOB,)).accounts == {"alice", "bob"}


def test_an_address_was_available_before_if_its_trail_does_not_say_otherwise() -> None:
    assert replace(IP, trail=()).status_before == Status.AVAILABLE
    taken = replace(ALICES, trail=(ASSIGNED._replace(origin=Origin("aging")),))
    assert taken.status_before == Status.AGING


def test_only_a_resting_address_says_until_when_it_rests() -> None:
    resting = replace(IP, status=Status.AGING, available_at=NOW)
    assert resting.rests_until == NOW
    assert replace(resting, status=Status.DISABLED).rests_until is None


def test_an_address_is_before_an_event_what_the_event_says() -> None:
    before = ALICES.before(event("changed", 3, origin=Origin("available", zone="y", host="i")))
    fields = before.status, before.assigned_to, before.zone, before.host
    assert fields == (Status.AVAILABLE, None, "y", "i")
    before = ALICES.before(event("assigned", 3, origin=Origin("reserved")))
    assert (before.status, before.zone, before.host) == (Status.RESERVED, IP.zone, IP.host)
    assert ALICES.before(event("assigned", 3)) is ALICES


def test_an_address_has_the_marks_of_its_status_of_now_after_an_event_of_this_status() -> None:
    resting = replace(IP, status=Status.AGING, available_at=NOW)
    aging = event("aged", 3, state=State("aging", None, "z", "h"))
    assert resting.as_of(aging).available_at == NOW
    assert resting.as_of(RELEASED).available_at is None


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (event("assigned", 3, origin=Origin("reserved")), Status.ASSIGNED),
        (event("deleted", 3, origin=Origin("disabled")), Status.DISABLED),
        (event("deleted", 3), Status.AVAILABLE),
    ],
    ids=["an assignment", "a deletion", "a deletion by an older release"],
)
def test_the_status_after_an_event_follows_from_its_kind(event: Event, status: Status) -> None:
    assert IP.as_of(event).status is status


@pytest.mark.parametrize("differs", ["kind", "account", "request"])
def test_an_event_is_found_by_kind_account_and_request(differs: str) -> None:
    ip = IP.assign("alice", at=2, request_id="a")
    wanted = {"kind": "assigned", "account": "alice", "request": "a"}
    assert ip.event(*wanted.values())
    assert not ip.event(*{**wanted, differs: "released"}.values())


def leaves(
    *live: str, withdrawn: tuple[tuple[str, str], ...] = (), deleted: tuple[str, ...] = ()
) -> Leaves:
    claims = tuple(Withdrawal(revision, base, IP) for revision, base in withdrawn)
    leaves, deletions = (tuple(replace(IP, revision=r) for r in revs) for revs in (live, deleted))
    return Leaves(leaves, claims, deletions)


@pytest.mark.parametrize(
    ("leaves", "lost"),
    [
        (leaves(), None),
        (leaves("2-a", withdrawn=(("3-a", "1-a"),)), None),
        (leaves(withdrawn=(("3-a", "1-a"),)), "3-a"),
        (leaves(withdrawn=(("3-b", "1-a"), ("3-a", "1-a"))), "3-b"),
        (leaves(withdrawn=(("3-b", "1-a"), ("5-a", "3-a"))), "5-a"),
        (leaves(withdrawn=(("12-a", "10-a"), ("11-b", "9-a"))), "12-a"),
        (leaves(withdrawn=(("3-a", "1-a"),), deleted=("1-b",)), "3-a"),
        (leaves(withdrawn=(("3-a", "1-a"),), deleted=("2-b",)), None),
    ],
)
def test_an_address_that_all_writers_withdrew_is_restorable_unless_it_was_deleted_since(
    leaves: Leaves, lost: str | None
) -> None:
    assert (leaves.restorable.revision if leaves.restorable else None) == lost


@pytest.mark.parametrize(
    ("leaves", "on", "superseded"),
    [
        (leaves(), "1-a", False),
        (leaves("1-a"), "1-a", False),
        (leaves("1-a", "2-b"), "1-a", False),
        (leaves("2-b"), "1-a", True),
        (leaves("2-b"), "2-a", False),
        (leaves("2-b"), "3-a", False),
        (leaves("2-b"), None, True),
        (leaves(), None, False),
        (leaves(deleted=("2-b",)), "1-a", True),
        (leaves(deleted=("1-b",)), "1-a", False),
        (leaves(deleted=("1-b",)), None, True),
    ],
)
def test_a_revision_is_superseded_by_a_later_one(
    leaves: Leaves, on: str | None, superseded: bool
) -> None:
    assert leaves.supersede(on) == superseded


@pytest.mark.parametrize(
    ("leaves", "revision", "known"),
    [
        (leaves(), None, True),
        (leaves(), "1-a", False),
        (leaves("1-a"), "2-a", False),
        (leaves("2-a"), "2-a", True),
        (leaves("3-b"), "2-a", True),
        (leaves("1-a", deleted=("2-b",)), "2-a", True),
        (leaves(withdrawn=(("3-a", "1-a"),)), "2-a", True),
    ],
)
def test_lagging_replicas_do_not_reach_a_revision(
    leaves: Leaves, revision: str | None, known: bool
) -> None:
    assert leaves.reach(revision) == known


@pytest.mark.parametrize(
    ("leaves", "one"),
    [
        (leaves("2-a"), True),
        (leaves("2-a", "2-b"), False),
        (leaves("2-a", deleted=("2-b",)), False),
        (leaves("2-a", deleted=("1-b",)), True),
        (leaves(deleted=("2-b",)), False),
    ],
)
def test_a_write_in_a_conflict_with_a_deletion_is_not_single(leaves: Leaves, one: bool) -> None:
    assert leaves.is_single_since("1-a") == one


def test_an_address_that_is_added_again_continues_its_trail() -> None:
    first = replace(IP, trail=()).assign("alice", at=NOW, request_id="a")
    deleted = first.release(None, at=NOW + 1, request_id="b").delete(at=NOW + 1, request_id="b")
    trail = Leaves((), deleted=(deleted, first)).trail
    assert trail == deleted.trail
    anew = DedicatedIP.new("192.0.2.1", "z", "h", at=NOW + 2, request_id="c", trail=trail)
    assert anew.trail[:-1] == trail
    assert anew.event("assigned", "alice", "a")
    assert anew.accounts == {"alice"}


@pytest.mark.parametrize("has_trail", [True, False])
def test_a_dropped_revision_that_is_no_deletion_has_not_the_trail_of_one(has_trail: bool) -> None:
    first = replace(IP, trail=()).assign("alice", at=NOW, request_id="a")
    gone = first.release(None, at=NOW + 1, request_id="b").delete(at=NOW + 1, request_id="b")
    dropped = replace(first, revision="9-a", trail=first.trail if has_trail else ())
    assert Leaves((), deleted=(gone,), before_dropped=(dropped,)).deleted_trail == gone.trail
    readded = replace(gone, revision="9-a", trail=(*gone.trail, gone.trail[-1]))
    leaves = Leaves((), deleted=(gone,), before_dropped=(readded,))
    assert leaves.deleted_trail == readded.trail


@pytest.mark.parametrize(
    ("is_withdrawn", "was_dropped", "has_other_trail", "shown"),
    [
        (True, True, False, "9-a"),
        (False, True, False, "7-a"),
        (True, True, True, "7-a"),
        (True, False, False, "7-a"),
    ],
)
def test_an_addition_that_was_dropped_after_a_deletion_is_what_there_was(
    is_withdrawn: bool, was_dropped: bool, has_other_trail: bool, shown: str
) -> None:
    gone = replace(IP, revision="7-a", trail=(event("deleted", 7),))
    trail = (*gone.trail, event("created", 8)) if has_other_trail else gone.trail
    dropped = (replace(IP, revision="9-a", trail=trail),) if was_dropped else ()
    leaves = Leaves((), deleted=(gone,), before_dropped=dropped)
    current = Branches(leaves, is_withdrawn=is_withdrawn).current
    assert current is not None
    assert current.revision == shown


@pytest.mark.parametrize(
    ("trail", "deleted", "outdated"),
    [
        ((), (), False),
        ((ASSIGNED,), (), False),
        ((ASSIGNED,), (ASSIGNED, event("deleted", 5)), True),
        ((ASSIGNED, event("found", 6)), (ASSIGNED, event("deleted", 5)), True),
        ((event("undone", 2, was="assigned"),), (ASSIGNED, event("deleted", 5)), True),
        ((RELEASED,), (ASSIGNED, event("deleted", 5)), False),
        ((ASSIGNED,), (ASSIGNED, RELEASED), False),
        ((FOUND,), (ASSIGNED, event("deleted", 5)), False),
    ],
    ids=[
        "no events", "an unknown deletion", "a deletion", "a note after it", "an undone event",
        "another event", "no deletion", "no event of this service",
    ],
)  # fmt: skip
def test_a_revision_is_outdated_if_the_address_was_deleted_after_its_last_event(
    trail: Trail, deleted: Trail, outdated: bool
) -> None:
    leaf = replace(IP, revision="6-a", trail=trail)
    leaves = Leaves((leaf,), deleted=(replace(IP, revision="5-b", trail=deleted),))
    assert leaves.is_outdated(leaf) is outdated


def test_of_two_events_of_a_request_the_last_is_found() -> None:
    ip = replace(IP, trail=()).assign("alice", at=NOW, request_id="a")
    ip = ip.release("alice", at=NOW + 1, request_id="b").assign(
        "alice", at=NOW + 2, request_id="a"
    )
    event = ip.event("assigned", "alice", "a")
    assert event
    assert event.at == NOW + 2
