"""An assignment that one server has acknowledged is visible on all servers at once.

`RACE_LISTS` is the number of rounds (default 20).
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import urllib3

from kazoo_ips.model import DedicatedIP
from tests.conftest import Member
from tests.openapi_check import checked
from tests.races.test_exact_fit import Field, field

LISTS = int(os.environ.get("RACE_LISTS", "20"))
ADDRESSES = [f"192.0.2.{n}" for n in range(8)]

__all__ = ["field"]


class Client:
    """Sends requests to the servers in turn, so that no server gets two in a row."""

    def __init__(self, field: Field) -> None:
        self._http = urllib3.PoolManager(num_pools=len(field.servers))
        self._urls = self._turns(field)

    @staticmethod
    def _turns(field: Field) -> Iterator[str]:
        while True:
            yield from (server.url for server in field.servers)

    def send(
        self, member: Member, method: str, path: str = "", ips: list[str] | None = None
    ) -> set[str]:
        """Return the addresses of a reply."""
        url = f"{next(self._urls)}/v2/accounts/{member.id}/ips{path}"
        body = {"data": {"ips": ips}} if ips else None
        reply = self._http.request(method, url, json=body, headers=member.headers, retries=False)
        assert checked(method, reply).status == 200, reply.data
        data = reply.json()["data"]
        return set(data["ips"]) if isinstance(data, dict) else {line["ip"] for line in data}


@pytest.fixture
def client(field: Field) -> Client:
    """A client that uses all servers."""
    return Client(field)


@pytest.fixture
def free(add: Callable[..., DedicatedIP]) -> list[str]:
    """Available addresses."""
    return [add(address).address for address in ADDRESSES]


def test_a_release_of_all_releases_every_earlier_assignment(
    field: Field, client: Client, free: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    missed: Counter[int] = Counter()
    for round_ in range(LISTS):
        member, ips = field.members[round_ % 2], free[round_ % 5 :][:4]
        client.send(member, "POST", ips=ips)
        left = set(ips) - client.send(member, "DELETE")
        missed[len(left)] += 1
        if left:
            client.send(member, "DELETE", ips=sorted(left))
    with capsys.disabled():
        print("\n    addresses missed by a release of all:", dict(missed))
    assert missed == {0: LISTS}


def test_a_list_shows_every_earlier_assignment_and_no_released_address(
    field: Field, client: Client, free: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: Counter[str] = Counter()
    for round_ in range(LISTS):
        member, ips = field.members[round_ % 2], free[round_ % 5 :][:4]
        client.send(member, "POST", ips=ips)
        wrong["too few"] += client.send(member, "GET", "/assigned") != set(ips)
        client.send(member, "DELETE", ips=ips)
        wrong["too many"] += client.send(member, "GET", "/assigned") != set()
    with capsys.disabled():
        print("\n    wrong lists:", dict(wrong))
    assert not +wrong
