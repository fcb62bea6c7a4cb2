"""A model of the pool: a dictionary of addresses.

It corresponds to Kazoo's `pqc_kazoo_model`. `Pool.apply` returns the reply that the service must
return, and changes the dictionary as the service must change its documents.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import singledispatchmethod
from typing import Any

from kazoo_ips.model.addresses import sort_key
from tests.stateful.commands import (
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
    canonical_form,
)

CONFLICTING = "conflicting documents"


@dataclass(frozen=True)
class Entry:
    """One address of the pool: its zone, its host, and the name of the account that owns it."""

    zone: str
    host: str
    owner: str | None = None

    @property
    def status(self) -> str:
        """The status, as in documents."""
        return "assigned" if self.owner else "available"


def assign_problem(entry: Entry | None, account: str) -> dict[str, str] | None:
    """Return the rule that an assignment breaks, with Crossbar's text; None if it is valid."""
    if entry is None:
        return {"not_found": "ip not found"}
    if entry.owner is None:
        return None
    if entry.owner == account:
        return {"superfluous": "ip already assigned"}
    return {"forbidden": "ip assigned to another account"}


def release_problem(entry: Entry | None, account: str) -> dict[str, str] | None:
    """Return the rule that a release breaks, with Crossbar's text; None if it is valid."""
    if entry is None:
        return {"not_found": "ip not found"}
    if entry.owner is None:
        return {"superfluous": "ip not assigned"}
    return None if entry.owner == account else {"forbidden": "ip assigned to another account"}


@dataclass
class Pool:
    """The addresses of the pool with their owners.

    :param ids: the account id of each name
    """

    ids: dict[str, str]
    entries: dict[str, Entry] = field(default_factory=dict)

    @singledispatchmethod
    def apply(self, command: Command) -> Reply:
        """Apply a command and return the expected reply."""
        raise NotImplementedError(command)

    @apply.register
    def _(self, command: Create) -> Reply:
        address = canonical_form(command.address)
        if address in self.entries:
            return Reply(409, "datastore_conflict", {"message": CONFLICTING})
        self.entries[address] = Entry(command.zone, command.host)
        return Reply(201, None, self.resource(address))

    @apply.register
    def _(self, command: Delete) -> Reply:
        address = canonical_form(command.address)
        if address not in self.entries:
            return not_found(command.address)
        if self.entries[address].owner and not command.force:
            refused = {"ips": {address: "assigned"}, "message": CONFLICTING}
            return Reply(409, "datastore_conflict", refused)
        self._set_owner(address, None)
        deleted = self.resource(address)
        del self.entries[address]
        return Reply(200, None, deleted)

    @apply.register
    def _(self, command: Move) -> Reply:
        address = canonical_form(command.address)
        if address not in self.entries:
            return not_found(command.address)
        entry = self.entries[address]
        self.entries[address] = replace(entry, zone=command.zone, host=command.host)
        return Reply(200, None, self.resource(address))

    @apply.register
    def _(self, command: Transfer) -> Reply:
        names = {account_id: name for name, account_id in self.ids.items()}
        to = names[command.to_id]

        def problem(entry: Entry | None, account: str) -> dict[str, str] | None:
            if entry and entry.owner == to:
                return {"superfluous": "ip already assigned"}
            return release_problem(entry, account)

        return self._many(command.addresses, problem, names[command.from_id], to)

    @apply.register
    def _(self, command: Fetch) -> Reply:
        address = canonical_form(command.address)
        entry = self.entries.get(address)
        visible = entry and (command.by == "operator" or entry.owner in (None, command.by))
        return Reply(200, None, self.resource(address)) if visible else not_found(command.address)

    @apply.register
    def _(self, command: Assign) -> Reply:
        return self._one(command.address, assign_problem, command.account, command.account)

    @apply.register
    def _(self, command: Release) -> Reply:
        return self._one(command.address, release_problem, command.account, None)

    @apply.register
    def _(self, command: AssignMany) -> Reply:
        return self._many(command.addresses, assign_problem, command.account, command.account)

    @apply.register
    def _(self, command: ReleaseMany) -> Reply:
        return self._many(command.addresses, release_problem, command.account, None)

    @apply.register
    def _(self, command: ReleaseAll) -> Reply:
        own = self._sorted(lambda entry: entry.owner == command.account)
        for address in own:
            self._set_owner(address, None)
        return Reply(200, None, {"ips": own})

    @apply.register
    def _(self, command: ListAvailable) -> Reply:
        listed = self._sorted(
            lambda entry: (
                entry.owner is None
                and command.zone in (None, entry.zone)
                and command.host in (None, entry.host)
            )
        )
        return Reply(200, None, self._lines(listed[: command.quantity]))

    @apply.register
    def _(self, command: ListAssigned) -> Reply:
        return Reply(
            200, None, self._lines(self._sorted(lambda entry: entry.owner == command.account))
        )

    @apply.register
    def _(self, command: ListNames) -> Reply:
        column = command.kind.removesuffix("s")
        return Reply(200, None, sorted({getattr(e, column) for e in self.entries.values()}))

    def resource(self, address: str) -> dict[str, Any]:
        """Return the resource of a dedicated IP."""
        entry = self.entries[address]
        return {
            "id": address,
            "ip": address,
            "zone": entry.zone,
            "host": entry.host,
            "status": entry.status,
            "type": "dedicated_ip",
            **({"assigned_to": self.ids[entry.owner]} if entry.owner else {}),
        }

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the number of addresses of each status and zone."""
        return dict(Counter((entry.status, entry.zone) for entry in self.entries.values()))

    def _one(self, spelled: str, problem: Any, account: str, owner: str | None) -> Reply:
        address = canonical_form(spelled)
        broken = problem(self.entries.get(address), account)
        if broken and "not_found" in broken:
            return not_found(spelled)
        if broken:
            return Reply(400, "validation error", {"ips.0": broken})
        self._set_owner(address, owner)
        return Reply(200, None, self.resource(address))

    def _many(
        self, spelled: tuple[str, ...], problem: Any, account: str, owner: str | None
    ) -> Reply:
        addresses = [canonical_form(each) for each in spelled]
        repeated = {
            f"ips.{i}": {"uniqueItems": "List of items is not unique"}
            for i, address in enumerate(addresses)
            if address in addresses[:i]
        }
        broken = {
            f"ips.{i}": rule
            for i, address in enumerate(addresses)
            if (rule := problem(self.entries.get(address), account))
        }
        if repeated or broken:
            return Reply(400, "validation error", repeated or broken)
        for address in addresses:
            self._set_owner(address, owner)
        return Reply(200, None, {"ips": addresses})

    def _set_owner(self, address: str, owner: str | None) -> None:
        self.entries[address] = replace(self.entries[address], owner=owner)

    def _sorted(self, wanted: Any) -> list[str]:
        found = [address for address, entry in self.entries.items() if wanted(entry)]
        return sorted(found, key=lambda address: (self.entries[address].zone, sort_key(address)))

    def _lines(self, listed: list[str]) -> list[dict[str, str]]:
        return [
            {"ip": a, "zone": self.entries[a].zone, "host": self.entries[a].host} for a in listed
        ]


def not_found(cause: str) -> Reply:
    """Return the reply for an address that is not in the pool."""
    return Reply(404, "bad_identifier", {"cause": cause, "message": "bad identifier"})
