"""The commands of Kazoo's acceptance test (`pqc_cb_ips`) and some more, and their requests.

A command has addresses in any spelling. `Client.send` sends it. The model predicts the reply, and
the parallel test checks it.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from webtest import TestApp

from kazoo_ips.model.addresses import canonical

SPELLINGS = {
    "192.0.2.2": ["192.0.2.2"],
    "192.0.2.10": ["192.0.2.10"],
    "198.51.100.1": ["198.51.100.1"],
    "2001:db8::1": ["2001:db8::1", "2001:DB8::1", "2001:0db8:0:0::0001"],
    "2001:db8::a": ["2001:db8::a", "2001:db8:0:0:0:0:0:A", "2001:db8::0.0.0.10"],
    "2001:db8:0:1::": ["2001:db8:0:1::", "2001:db8:0:1:0:0:0:0", "2001:DB8::1:0:0:0:0"],
}
ADDRESSES = list(SPELLINGS)
ZONES = ["us-east", "us-west"]
HOSTS = ["proxy1.example.com", "proxy2.example.com"]
OWN = "/v2/accounts/{account}/ips"


Request = tuple[str, str, dict[str, Any] | None]
"""Method, path and data; `{account}` stands for the id of the account."""


@dataclass(frozen=True)
class Command:
    """A command.

    :param by: the owner of the token: an account's name, or `operator`
    """

    by: str

    def request(self) -> Request:
        """Return method, path and data."""
        raise NotImplementedError


@dataclass(frozen=True)
class Create(Command):
    address: str
    zone: str
    host: str

    def request(self) -> Request:
        return "put", "/v2/ips", {"ip": self.address, "zone": self.zone, "host": self.host}


@dataclass(frozen=True)
class Delete(Command):
    address: str
    force: bool = False

    def request(self) -> Request:
        query = "?force=true" if self.force else ""
        return "delete", f"/v2/ips/{quote(self.address, safe='')}{query}", None


@dataclass(frozen=True)
class Move(Command):
    """Move an address to another zone and host, whichever account has it."""

    address: str
    zone: str
    host: str

    def request(self) -> Request:
        place = {"zone": self.zone, "host": self.host}
        return "patch", f"/v2/ips/{quote(self.address, safe='')}", place


@dataclass(frozen=True)
class Transfer(Command):
    """Transfer addresses from one account to another one. Both are named by id."""

    addresses: tuple[str, ...]
    from_id: str
    to_id: str

    def request(self) -> Request:
        accounts = {"from": self.from_id, "to": self.to_id}
        return "post", "/v2/ips/transfer", {"ips": list(self.addresses), **accounts}


@dataclass(frozen=True)
class OfAccount(Command):
    account: str


@dataclass(frozen=True)
class Assign(OfAccount):
    address: str

    def request(self) -> Request:
        return "post", f"{OWN}/{quote(self.address, safe='')}", {}


@dataclass(frozen=True)
class Release(OfAccount):
    address: str

    def request(self) -> Request:
        return "delete", f"{OWN}/{quote(self.address, safe='')}", None


@dataclass(frozen=True)
class Fetch(OfAccount):
    address: str

    def request(self) -> Request:
        return "get", f"{OWN}/{quote(self.address, safe='')}", None


@dataclass(frozen=True)
class AssignMany(OfAccount):
    addresses: tuple[str, ...]

    def request(self) -> Request:
        return "post", OWN, {"ips": list(self.addresses)}


@dataclass(frozen=True)
class ReleaseMany(OfAccount):
    addresses: tuple[str, ...]

    def request(self) -> Request:
        return "delete", OWN, {"ips": list(self.addresses)}


@dataclass(frozen=True)
class ReleaseAll(OfAccount):
    def request(self) -> Request:
        return "delete", OWN, None


@dataclass(frozen=True)
class ListAvailable(OfAccount):
    zone: str | None = None
    host: str | None = None
    quantity: int | None = None

    def request(self) -> Request:
        query = {"zone": self.zone, "host": self.host, "quantity": self.quantity}
        return "get", f"{OWN}?{urlencode({k: v for k, v in query.items() if v})}", None


@dataclass(frozen=True)
class ListAssigned(OfAccount):
    def request(self) -> Request:
        return "get", f"{OWN}/assigned", None


@dataclass(frozen=True)
class ListNames(OfAccount):
    """The zones or the hosts in use.

    :param kind: `zones` or `hosts`
    """

    kind: str

    def request(self) -> Request:
        return "get", f"{OWN}/{self.kind}", None


@dataclass(frozen=True)
class Reply:
    """A reply: its status, its message (None for a success) and its data."""

    code: int
    message: str | None
    data: Any


@dataclass
class Client:
    """Sends commands.

    :param tokens: the token of each name
    :param ids: the account id of each name
    """

    app: TestApp
    tokens: dict[str, str]
    ids: dict[str, str]

    def send(self, command: Command) -> Reply:
        """Send a command and return its reply, of any status."""
        method, path, data = command.request()
        account_id = self.ids[getattr(command, "account", "operator")]
        options: dict[str, Any] = {} if data is None else {"params": {"data": data}}
        reply = getattr(self.app, f"{method}_json" if options else method)(
            path.format(account=account_id),
            headers={
                "X-Auth-Token": self.tokens[command.by],
                **({"If-Match": "*"} if isinstance(command, Move) else {}),
            },
            status="*",
            **options,
        )
        body = reply.json
        assert body["status"] == ("success" if reply.status_int < 400 else "error")
        return Reply(reply.status_int, body.get("message"), body["data"])


def canonical_form(address: str) -> str:
    """Return the canonical form of an address."""
    form = canonical(address)
    assert form
    return form
