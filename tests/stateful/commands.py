"""The commands of Kazoo's acceptance test (`pqc_cb_ips`) and a little more, and how each is sent.

A command names addresses as a caller may spell them. `send` makes a request of it and of the
reply a plain pair, which the model predicts and the parallel test judges.
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
    """Something to do.

    :param by: whose token: an account's name, or the operator's
    """

    by: str

    def request(self) -> Request:
        """What is sent."""
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
        asked = {"zone": self.zone, "host": self.host, "quantity": self.quantity}
        return "get", f"{OWN}?{urlencode({k: v for k, v in asked.items() if v})}", None


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
    """What came back: the code, the token of what went wrong, and the data."""

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
        """One request, whatever comes back."""
        method, path, data = command.request()
        account_id = self.ids[getattr(command, "account", "operator")]
        options: dict[str, Any] = {} if data is None else {"params": {"data": data}}
        reply = getattr(self.app, f"{method}_json" if options else method)(
            path.format(account=account_id),
            headers={"X-Auth-Token": self.tokens[command.by]},
            status="*",
            **options,
        )
        body = reply.json
        assert body["status"] == ("success" if reply.status_int < 400 else "error")
        return Reply(reply.status_int, body.get("message"), body["data"])


def as_kept(address: str) -> str:
    """An address as the pool keeps it."""
    kept = canonical(address)
    assert kept
    return kept
