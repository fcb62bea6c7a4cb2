"""The service and the model agree for random sequences of commands.

This is Kazoo's acceptance test `pqc_cb_ips` with more addresses, spellings and accounts. It also
compares the documents after every step.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kazoo_ips.model.addresses import canonical
from tests.stateful.commands import (
    ADDRESSES,
    HOSTS,
    SPELLINGS,
    ZONES,
    Assign,
    AssignMany,
    Command,
    Create,
    Delete,
    Fetch,
    ListAssigned,
    ListAvailable,
    ListNames,
    Move,
    Release,
    ReleaseAll,
    ReleaseMany,
    Reply,
    Transfer,
)
from tests.stateful.conftest import World
from tests.stateful.model import Pool
from tests.stateful.timeline import Change, changes
from tests.strategies import runs

spellings = st.sampled_from(ADDRESSES).flatmap(lambda a: st.sampled_from(SPELLINGS[a]))
few = st.lists(spellings, min_size=1, max_size=4).map(tuple)
accounts = st.sampled_from(["alice", "bob"])
own_or_operator = st.booleans()


class PoolMachine(RuleBasedStateMachine):
    """Compares each reply, and the databases after it, with the model.

    At the end it compares the archive, the feed and the deliveries of webhooks with the changes of
    the model.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.resources = ExitStack()
        self.world = world
        self.client = world.client()
        self.model = Pool(world.ids)
        self.timelines: dict[str, list[Change]] = {}
        for database in (world.pool, *world.copies.values()):
            remove_ips(world, database)
        world.archive.skip()
        self.subscribers = self.resources.enter_context(world.subscribed())

    def check(self, command: Command) -> None:
        """Send a command, and compare the reply with the model's."""
        with self.recorded():
            expected = self.model.apply(command)
        got = comparable(self.client.send(command))
        if isinstance(command, ReleaseAll):
            expected, got = unordered(expected), unordered(got)
        assert got == expected, command

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record what the body changes in the model."""
        before = dict(self.model.entries)
        yield
        for address in before.keys() | self.model.entries.keys():
            made = changes(before.get(address), self.model.entries.get(address), self.world.ids)
            if made:
                self.timelines.setdefault(address, []).extend(made)

    def teardown(self) -> None:
        """Compare the archive, the feed and the deliveries with the timelines."""
        with self.resources:
            self.world.archive.run()
            assert self.world.archive.timelines() == self.timelines
            self.subscribers.check(self.timelines)

    # Writes of Kazoo, to the documents and the copies. The archiver runs before each next write of
    # Kazoo, because the embedded database keeps no earlier revisions.

    @rule(account=accounts, data=st.data())
    def kazoo_assigns(self, account: str, data: st.DataObject) -> None:
        free = [a for a, entry in self.model.entries.items() if entry.owner is None]
        if free:
            owner = {"pvt_status": "assigned", "pvt_assigned_to": self.world.ids[account]}
            document = self.written(data.draw(st.sampled_from(free)), account, owner)
            omitted = ("_rev", "pvt_trail", "pvt_transaction", "pvt_written_generation")
            copy = {k: v for k, v in document.items() if k not in omitted}
            assert self.world.copies[account].put(copy).revision

    @rule(data=st.data())
    def kazoo_releases(self, data: st.DataObject) -> None:
        own = [a for a, entry in self.model.entries.items() if entry.owner]
        if own:
            address = data.draw(st.sampled_from(own))
            copies = self.world.copies[self.model.entries[address].owner or ""]
            self.written(address, None, {"pvt_status": "available"})
            copies.remove(address, copies.get(address)["_rev"])

    def written(self, address: str, owner: str | None, fields: dict[str, str]) -> dict[str, Any]:
        """Write a document as Kazoo does."""
        self.world.archive.run()
        document = self.world.pool.get(address)
        document.pop("pvt_assigned_to", None)
        document |= {**fields, "pvt_modified": document["pvt_modified"] + 1}
        assert self.world.pool.put(document).revision
        with self.recorded():
            entry = self.model.entries[address]
            self.model.entries[address] = replace(entry, owner=owner)
        self.world.archive.run()
        return document

    @rule(restarts=st.booleans())
    def archive(self, restarts: bool) -> None:
        if restarts:
            self.world.archive.restart()
        self.world.archive.run()

    @rule(number=st.integers(1, 12), answered=st.booleans())
    def kill_the_archiver(self, number: int, answered: bool) -> None:
        self.world.archive.run_killed(number, answered=answered)

    @rule(seconds=st.sampled_from([2, 40, 4000]))
    def set_the_clock_back(self, seconds: int) -> None:
        self.world.archive.clock.now -= seconds

    @rule(restarts=st.booleans())
    def deliver(self, restarts: bool) -> None:
        if restarts:
            self.subscribers.restart()
        self.subscribers.deliver()
        self.subscribers.read()

    # The operator's pool.

    @rule(address=spellings, zone=st.sampled_from(ZONES), host=st.sampled_from(HOSTS))
    def create_ip(self, address: str, zone: str, host: str) -> None:
        self.check(Create("operator", address, zone, host))

    @precondition(lambda self: len(self.model.entries) < 3)
    @rule(zone=st.sampled_from(ZONES), host=st.sampled_from(HOSTS))
    def create_most(self, zone: str, host: str) -> None:
        for address in ADDRESSES[::-1][:5]:
            self.check(Create("operator", address, zone, host))

    @rule(address=spellings, force=st.booleans())
    def delete_ip(self, address: str, force: bool) -> None:
        self.check(Delete("operator", address, force))

    @rule(address=spellings, zone=st.sampled_from(ZONES), host=st.sampled_from(HOSTS))
    def move_ip(self, address: str, zone: str, host: str) -> None:
        self.check(Move("operator", address, zone, host))

    @rule(account=accounts, data=st.data())
    def transfer_ips(self, account: str, data: st.DataObject) -> None:
        own = [a for a, entry in self.model.entries.items() if entry.owner]
        if own:
            chosen = st.lists(st.sampled_from(own), min_size=1, max_size=3, unique=True)
            ids, other = self.world.ids, {"alice": "bob", "bob": "alice"}[account]
            command = Transfer("operator", tuple(data.draw(chosen)), ids[account], ids[other])
            self.check(command)

    # Writes of accounts.

    @rule(account=accounts, address=spellings, operator=own_or_operator)
    def assign_ip(self, account: str, address: str, operator: bool) -> None:
        self.check(Assign("operator" if operator else account, account, address))

    @rule(account=accounts, addresses=few)
    def assign_ips(self, account: str, addresses: tuple[str, ...]) -> None:
        self.check(AssignMany(account, account, addresses))

    @rule(account=accounts, data=st.data())
    def assign_available_ips(self, account: str, data: st.DataObject) -> None:
        free = [a for a, entry in self.model.entries.items() if entry.owner is None]
        if free:
            chosen = st.lists(st.sampled_from(free), min_size=1, max_size=4, unique=True)
            self.check(AssignMany(account, account, tuple(data.draw(chosen))))

    @rule(account=accounts, address=spellings, operator=own_or_operator)
    def release_ip(self, account: str, address: str, operator: bool) -> None:
        self.check(Release("operator" if operator else account, account, address))

    @rule(account=accounts, addresses=few)
    def release_ips(self, account: str, addresses: tuple[str, ...]) -> None:
        self.check(ReleaseMany(account, account, addresses))

    @rule(account=accounts, data=st.data())
    def release_own_ips(self, account: str, data: st.DataObject) -> None:
        own = [a for a, entry in self.model.entries.items() if entry.owner == account]
        if own:
            chosen = st.lists(st.sampled_from(own), min_size=1, max_size=4, unique=True)
            self.check(ReleaseMany(account, account, tuple(data.draw(chosen))))

    @rule(account=accounts)
    def release_all(self, account: str) -> None:
        self.check(ReleaseAll(account, account))

    # Reads.

    @rule(account=accounts, address=spellings, operator=own_or_operator)
    def fetch_ip(self, account: str, address: str, operator: bool) -> None:
        self.check(Fetch("operator" if operator else account, account, address))

    @rule(
        account=accounts,
        zone=st.none() | st.sampled_from([*ZONES, "nowhere"]),
        host=st.none() | st.sampled_from([*HOSTS, "nobody.example.com"]),
        quantity=st.none() | st.integers(1, 4),
    )
    def list_ips(
        self, account: str, zone: str | None, host: str | None, quantity: int | None
    ) -> None:
        self.check(ListAvailable(account, account, zone, host, quantity))

    @rule(account=accounts)
    def fetch_assigned(self, account: str) -> None:
        self.check(ListAssigned(account, account))

    @rule(account=accounts, kind=st.sampled_from(["zones", "hosts"]))
    def fetch_names(self, account: str, kind: str) -> None:
        self.check(ListNames(account, account, kind))

    # Invariants, checked after every step.

    @invariant()
    def the_lists_agree_with_the_model(self) -> None:
        for account in ("alice", "bob"):
            self.check(ListAssigned("operator", account))
        self.check(ListAvailable("operator", "alice"))

    @invariant()
    def the_documents_agree_with_the_model(self) -> None:
        documents = self.world.documents(self.world.pool)
        assert set(documents) == set(self.model.entries)
        for address, entry in self.model.entries.items():
            expected = {
                "_id": address,
                "pvt_type": "dedicated_ip",
                "pvt_vsn": "1",
                "pvt_status": entry.status,
                "pvt_zone": entry.zone,
                "pvt_host": entry.host,
                **({"pvt_assigned_to": self.world.ids[entry.owner]} if entry.owner else {}),
            }
            of_this_write = (
                "_rev", "pvt_created", "pvt_modified", "pvt_request_id", "pvt_trail",
                "pvt_transaction", "pvt_written_generation",
            )  # fmt: skip
            document = documents[address]
            assert {k: v for k, v in document.items() if k not in of_this_write} == expected
            assert document["pvt_created"] <= document["pvt_modified"]

    @invariant()
    def the_accounts_have_copies_of_their_addresses(self) -> None:
        documents = self.world.documents(self.world.pool)
        for account, database in self.world.copies.items():
            own = {a for a, entry in self.model.entries.items() if entry.owner == account}
            copies = self.world.documents(database)
            assert {a: fields(c) for a, c in copies.items()} == {
                a: fields(documents[a]) for a in own
            }

    @invariant()
    def the_counts_by_zone_are_right(self) -> None:
        rows = self.world.pool.rows("ips/by_zone", group_level=2)
        assert {tuple(row.key): row.value for row in rows} == self.model.counts()


def remove_ips(world: World, database: Any) -> None:
    """Delete all dedicated IPs from a database, without the service."""
    database.put_all(
        [
            {"_id": d["_id"], "_rev": d["_rev"], "_deleted": True}
            for d in world.documents(database).values()
        ]
    )


def fields(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without the fields that differ between the pool and a copy."""
    of_the_pool = ("_rev", "pvt_trail", "pvt_transaction", "pvt_written_generation")
    return {k: v for k, v in document.items() if k not in of_the_pool}


def comparable(reply: Reply) -> Reply:
    """Check the parts of a reply that the model cannot predict, and remove them."""
    data = reply.data
    if reply.message == "validation error":
        for messages in data.values():
            for rule_, content in messages.items():
                assert set(content) == {"message", "value"}
                assert canonical(content["value"])
                messages[rule_] = content["message"]
    if isinstance(data, dict) and "_read_only" in data:
        read_only = data.pop("_read_only")
        assert {"created", "modified", "rev"} <= set(read_only)
        assert read_only.get("deleted", False) == (reply.code == 200)
    return reply


def unordered(reply: Reply) -> Reply:
    """Return a reply with its addresses sorted."""
    return Reply(reply.code, reply.message, {"ips": sorted(reply.data["ips"])})


def test_the_service_agrees_with_the_model(world: World) -> None:
    run_state_machine_as_test(lambda: PoolMachine(world), settings=runs(6, stateful_step_count=15))


def test_kazoos_own_sequence_of_commands_works(world: World) -> None:
    # seq_ips.erl of Kazoo 5, which deletes the address while it is assigned.
    machine = PoolMachine(world)
    steps: list[Callable[[], None]] = [
        lambda: machine.create_ip("192.0.2.2", "zone-1", "a.host.example.com"),
        lambda: machine.list_ips("alice", None, None, None),
        lambda: machine.assign_ip("alice", "192.0.2.2", False),
        lambda: machine.fetch_ip("alice", "192.0.2.2", False),
        lambda: machine.fetch_names("alice", "hosts"),
        lambda: machine.fetch_names("alice", "zones"),
        lambda: machine.fetch_assigned("alice"),
        lambda: machine.delete_ip("192.0.2.2", False),
        lambda: machine.delete_ip("192.0.2.2", True),
        lambda: machine.fetch_assigned("alice"),
    ]
    for step in steps:
        step()
        machine.the_lists_agree_with_the_model()
        machine.the_documents_agree_with_the_model()
        machine.the_accounts_have_copies_of_their_addresses()
        machine.the_counts_by_zone_are_right()
    assert machine.model.entries == {}
    machine.teardown()
