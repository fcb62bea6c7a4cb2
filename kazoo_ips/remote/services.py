"""The services that commands need, called over the API."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kazoo_ips.errors import (
    BadIdentifier,
    Conflict,
    Forbidden,
    IPExists,
    RemoteFailure,
)
from kazoo_ips.model import (
    Account,
    AccountPage,
    AssignIP,
    CreateIP,
    DeleteIP,
    Listing,
    ListIPs,
    ReleaseIP,
    ReleaseIPs,
    Status,
    TransferIPs,
)
from kazoo_ips.model.history import HistoryEvent
from kazoo_ips.model.timelines import Holder, ListEvents
from kazoo_ips.remote import resources
from kazoo_ips.remote.client import APIClient, Service, address_segment, segment
from kazoo_ips.remote.exports import RemoteExports, RemoteLineStorage
from kazoo_ips.remote.jobs import RemoteJobs, RemotePlans, ServiceWork
from kazoo_ips.remote.limits import RemoteLimits
from kazoo_ips.remote.operator_changes import RemoteOperatorChanges
from kazoo_ips.remote.places import RemoteDrains, RemotePlaces
from kazoo_ips.remote.reservations import RemoteReservations
from kazoo_ips.remote.status import RemoteStatus
from kazoo_ips.remote.summaries import RemoteSummaries
from kazoo_ips.remote.usage import RemoteUsage
from kazoo_ips.services.pool.bulk_additions import AdditionOutcome
from kazoo_ips.services.pool.exports import RestoreService
from kazoo_ips.services.pool.imports import ImportService

_IDS = 100
"""Ids of accounts in one request: the most that the API permits."""
_ACCOUNT_ID = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class RemoteServices:
    """The services of another machine. Their methods are those of `services/`."""

    accounts: "RemoteAccounts"
    pool: "RemotePool"
    ips: "RemoteIPs"
    transfers: "RemoteTransfers"
    lists: "RemoteLists"
    summaries: RemoteSummaries
    limits: RemoteLimits
    reservations: RemoteReservations
    jobs: RemoteJobs
    plans: RemotePlans
    job_thread: ServiceWork
    operator_changes: RemoteOperatorChanges
    places: RemotePlaces
    drains: RemoteDrains
    history: "RemoteHistory"
    imports: ImportService
    exports: RemoteExports
    restores: RestoreService
    usage: RemoteUsage
    status: RemoteStatus


def connect(service: Service, **options: Any) -> RemoteServices:
    """Return the services at a URL. This sends no request.

    :param options: those of `APIClient`
    :raises RemoteFailure: the file of certificates cannot be read
    """
    client = APIClient(service, **options)
    accounts = RemoteAccounts(client)
    return RemoteServices(
        accounts=accounts,
        pool=RemotePool(client),
        ips=RemoteIPs(client),
        transfers=RemoteTransfers(client),
        lists=RemoteLists(client, accounts),
        summaries=RemoteSummaries(client),
        limits=RemoteLimits(client),
        reservations=RemoteReservations(client),
        jobs=RemoteJobs(client),
        plans=RemotePlans(client),
        job_thread=ServiceWork(),
        operator_changes=RemoteOperatorChanges(client),
        places=RemotePlaces(client),
        drains=RemoteDrains(client),
        history=RemoteHistory(client),
        imports=ImportService(RemoteAdditions(client)),
        exports=RemoteExports(client),
        restores=RestoreService(RemoteLineStorage(client)),
        usage=RemoteUsage(client),
        status=RemoteStatus(client),
    )


class RemoteAccounts:
    """The accounts that the service knows. Only the operator can look them up."""

    def __init__(self, client: APIClient) -> None:
        self._client = client
        self._names: dict[str, str | None] = {}

    def candidates(self, given: str) -> list[Account]:
        """Return the accounts that have this id, realm or name.

        For a caller who is not the operator, an id is returned as an account without a name. The
        service decides later whether the caller may act on it.

        :raises RemoteFailure: the text is no id, and the caller is not the operator
        """
        if not given:
            return []
        try:
            reply = self._client.get("/ips/accounts", account=given)
        except Forbidden:
            if _ACCOUNT_ID.fullmatch(given):
                return [Account(given, "", "", ())]
            text = "only the operator can name accounts by realm or name; use the account's id"
            raise RemoteFailure(text) from None
        return [resources.account(each) for each in reply.data]

    def list(self) -> list[Account]:
        """Return all accounts, by realm."""
        pages = self._client.pages("/ips/accounts")
        return [resources.account(each) for page in pages for each in page.data]

    def page(self, limit: int, first: str | None = None) -> AccountPage:
        """Return a part of the list of accounts, by realm; none to others than the operator.

        :param first: `next` of the previous page; None is the start
        """
        try:
            page = self._client.get("/ips/accounts", page_size=limit, start_key=first)
        except Forbidden:
            return AccountPage(())
        return AccountPage([resources.account(each) for each in page.data], page.next_start_key)

    def names(self, account_ids: Collection[str]) -> dict[str, str]:
        """Return the names of accounts by id. Accounts that do not exist are left out."""
        unknown = sorted(each for each in account_ids if each not in self._names)
        for start in range(0, len(unknown), _IDS):
            self._look_up(unknown[start : start + _IDS])
        names = {each: self._names[each] for each in account_ids}
        return {each: name for each, name in names.items() if name is not None}

    def learn(self, account_id: str, name: str | None) -> None:
        """Remember the name of an account from a reply; None if the account does not exist."""
        self._names[account_id] = name

    def _look_up(self, account_ids: Sequence[str]) -> None:
        self._names |= dict.fromkeys(account_ids)
        try:
            reply = self._client.get("/ips/accounts", ids=",".join(account_ids))
        except Forbidden:
            return
        self._names |= {each["id"]: each["name"] for each in reply.data}


class RemotePool:
    """Adds and deletes addresses."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def create(self, command: CreateIP, request_id: str) -> Listing:
        """Add an address to the pool.

        :raises IPExists: the pool has the address already, in any spelling
        """
        data = {"ip": command.address, "zone": command.zone, "host": command.host}
        try:
            reply = self._client.write("PUT", "/ips", data, request_id=request_id)
        except Conflict:
            raise IPExists(command.address) from None
        return resources.listing(reply.data)

    def delete(self, command: DeleteIP, request_id: str) -> Listing:
        """Delete an address from the pool. With `force`, release it first.

        :raises IPNotFound: the address is not in the pool
        :raises IPAssigned: it is assigned, and `force` is not given
        """
        path = f"/ips/{address_segment(command.address)}"
        force = True if command.force else None
        reply = self._client.write("DELETE", path, request_id=request_id, force=force)
        return resources.listing(reply.data)


class RemoteIPs:
    """Assigns and releases addresses."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def fetch(self, address: str) -> Listing:
        """Return a dedicated IP; for other callers than the operator, if they may see it.

        :raises BadIdentifier: the pool does not have the address, or the caller may not see it
        """
        path = address_segment(address)
        try:
            reply = self._client.get(f"/ips/{path}")
        except Forbidden:
            reply = self._client.get(f"{self._of(self._client.account_id)}/{path}")
        return resources.listing(reply.data)

    def assign(self, command: AssignIP, request_id: str) -> Listing:
        """Assign an available address to an account.

        :raises ValidationFailed: it is not available
        """
        path = f"{self._of(command.account_id)}/{address_segment(command.address)}"
        return resources.listing(self._client.write("POST", path, {}, request_id=request_id).data)

    def release(self, command: ReleaseIP, request_id: str) -> Listing:
        """Release an address, of the account in the command or of any account.

        :raises ValidationFailed: it is not assigned
        """
        account_id = command.account_id
        if account_id is None:
            account_id = self.fetch(command.address).assigned_to or self._client.account_id
        path = f"{self._of(account_id)}/{address_segment(command.address)}"
        return resources.listing(self._client.write("DELETE", path, request_id=request_id).data)

    def release_all(self, command: ReleaseIPs, request_id: str) -> list[Listing]:
        """Release these addresses of an account, or all; all or none.

        :returns: the addresses with their statuses, without their zones and hosts
        """
        data = None if command.addresses is None else {"ips": command.addresses}
        path = self._of(command.account_id)
        try:
            reply = self._client.write("DELETE", path, data, request_id=request_id)
        except BadIdentifier:
            text = f"there is no account {command.account_id}; what it has, is released on CouchDB"
            raise RemoteFailure(text) from None
        left = reply.data.get("left", {})
        released = [Listing(each, "", "", None, Status.AVAILABLE) for each in reply.data["ips"]]
        return released + [Listing(each, "", "", None, left[each]) for each in left]

    @staticmethod
    def _of(account_id: str) -> str:
        return f"/accounts/{segment(account_id)}/ips"


class RemoteTransfers:
    """Transfers addresses from account to account."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def transfer(
        self, command: TransferIPs, request_id: str, *, dry_run: bool = False
    ) -> list[Listing]:
        """Transfer addresses: all of them, in the order of the request, or none.

        :returns: the addresses, without their zones and hosts
        :raises ValidationFailed: an address is unknown or not assigned to the account
        """
        data = {"ips": command.addresses, "from": command.from_id, "to": command.to_id}
        reply = self._client.write(
            "POST", "/ips/transfer", data, request_id=request_id, dry_run=dry_run or None
        )
        return [
            Listing(each, "", "", command.to_id, Status.ASSIGNED) for each in reply.data["ips"]
        ]


class RemoteLists:
    """Lists of the pool, read in pages.

    :param accounts: learn the names of accounts from the lists
    """

    def __init__(self, client: APIClient, accounts: RemoteAccounts) -> None:
        self._client = client
        self._accounts = accounts

    def lines(self, query: ListIPs) -> Iterator[Listing]:
        """Yield all lines that match the filters, by zone and address.

        :param query: if it has a range of addresses, it is that of one CIDR block
        """
        filters = {"zone": query.zone, "host": query.host, "account_id": query.account_id}
        if query.between:
            filters["cidr"] = resources.cidr(query.between)
        for page in self._client.pages("/ips", status=query.status or "all", **filters):
            for line in page.data:
                if "assigned_to" in line:
                    self._accounts.learn(line["assigned_to"], line.get("account_name"))
                yield resources.listing(line)

    def zones(self) -> list[str]:
        """Return the names of all zones in the pool."""
        return list(self._client.get("/ips/zones").data)

    def hosts(self) -> list[str]:
        """Return the names of all hosts in the pool."""
        return list(self._client.get("/ips/hosts").data)


class RemoteHistory:
    """Answers questions about the history."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def holder(self, address: str, at: int) -> Holder:
        """Return who had an address at a time.

        :param at: in Gregorian seconds
        :raises IPNotFound: neither the pool nor the history has the address
        """
        return resources.holder(
            self._client.get(f"/ips/{address_segment(address)}/history", at=at).data
        )

    def lines(self, query: ListEvents) -> Iterator[HistoryEvent]:
        """Yield all events that match the filters, the latest first.

        :raises IPNotFound: neither the pool nor the history has the address
        """
        path = "/ips/history"
        if query.address is not None:
            path = f"/ips/{address_segment(query.address)}/history"
        filters: dict[str, Any] = {"account_id": query.account_id, "zone": query.zone}
        filters |= {"from": query.since, "to": query.until}
        for page in self._client.pages(path, **filters):
            yield from map(resources.event, page.data)

    def years(self) -> list[int]:
        """Return the years that have a database, in ascending order."""
        return list(self._client.get("/ips/history/years").data)

    def export(self, year: int) -> Iterator[HistoryEvent]:
        """Yield the events in the database of a year, the earliest first.

        :raises RemoteFailure: the reply breaks off
        """
        for text in self._client.lines(f"/ips/history/years/{year}"):
            yield resources.event(json.loads(text))


class RemoteAdditions:
    """Adds the addresses of an import, in requests of up to 1,000."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def add(
        self, commands: Sequence[CreateIP], request_id: str, respelled: Mapping[str, list[str]]
    ) -> list[resources.Addition]:
        """Add addresses to the pool, each independently of the others."""
        return self._import(commands, request_id=request_id)

    def preview(
        self, commands: Sequence[CreateIP], respelled: Mapping[str, list[str]]
    ) -> list[resources.Addition]:
        """Return the results that `add` would have. Nothing is written."""
        results = self._import(commands, dry_run=True)
        return [
            resources.Addition(AdditionOutcome.WOULD_BE_ADDED)
            if each.outcome is AdditionOutcome.ADDED
            else each
            for each in results
        ]

    def respelled(self) -> dict[str, list[str]]:
        """Return nothing: the service looks for other spellings itself."""
        return {}

    def _import(self, commands: Sequence[CreateIP], **more: Any) -> list[resources.Addition]:
        if not commands:
            return []
        data = {"ips": [{"ip": c.address, "zone": c.zone, "host": c.host} for c in commands]}
        reply = self._client.write("POST", "/ips/import", data, **more)
        return [resources.addition(each) for each in reply.data["results"]]
