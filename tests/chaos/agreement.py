"""Checks that the pool, the accounts' copies and the lists agree."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import urllib3

from tests.chaos.linearizability import AVAILABLE

_HTTP = urllib3.PoolManager(timeout=20, retries=False)


def send(node: str, path: str, method: str = "GET") -> Any:
    """Send a request to a node and return its content.

    :param node: the URL, with the administrator's name and password
    """
    parts = urllib3.util.parse_url(node)
    headers = urllib3.make_headers(basic_auth=parts.auth) if parts.auth else {}
    url = f"{parts.scheme}://{parts.netloc}/{path}"
    return _HTTP.request(method, url, headers=headers).json()


def remove(node: str, prefix: str) -> None:
    """Delete all databases whose names begin with the prefix."""
    for name in send(node, "_all_dbs"):
        if name.startswith(prefix):
            send(node, quote(name, safe=""), "DELETE")


def _documents(node: str, database: str) -> list[dict[str, Any]]:
    """Read the dedicated IPs of a database from one node."""
    path = f"{quote(database, safe='')}/_all_docs?include_docs=true&conflicts=true"
    documents = [row["doc"] for row in send(node, path)["rows"]]
    return [document for document in documents if document.get("pvt_type") == "dedicated_ip"]


def pool(node: str, prefix: str) -> dict[str, str]:
    """Return the state of each address in the pool: its account, or its status."""
    return {
        document["_id"]: document.get("pvt_assigned_to") or document["pvt_status"]
        for document in _documents(node, f"{prefix}dedicated_ips")
    }


def disagreements(
    nodes: Sequence[str], prefix: str, servers: Sequence[str], accounts: Sequence[str], token: str
) -> Iterator[str]:
    """Yield each difference between the pool at the first node and nodes, copies and lists.

    :param servers: the URLs of the service's instances
    :param token: the operator's
    """
    try:
        yield from _disagreements(nodes, prefix, servers, accounts, token)
    except (urllib3.exceptions.HTTPError, ValueError, KeyError) as error:
        yield f"no reply: {error}"


def _disagreements(
    nodes: Sequence[str], prefix: str, servers: Sequence[str], accounts: Sequence[str], token: str
) -> Iterator[str]:
    states = pool(nodes[0], prefix)
    for node, number in zip(nodes, range(1, len(nodes) + 1), strict=True):
        documents = _documents(node, f"{prefix}dedicated_ips")
        yield from _against(states, pool(node, prefix), f"node {number}")
        yield from (f"{d['_id']}: conflict" for d in documents if "_conflicts" in d)
        for account in accounts:
            database = f"{prefix}account/{account[:2]}/{account[2:4]}/{account[4:]}"
            copies = {d["_id"]: d.get("pvt_assigned_to", "") for d in _documents(node, database)}
            own = {address: state for address, state in states.items() if state == account}
            yield from _against(own, copies, f"copy at node {number}")
    for number, server in enumerate(servers):
        for account in accounts:
            own = {address: state for address, state in states.items() if state == account}
            listed = _list(f"{server}/v2/accounts/{account}/ips/assigned", token)
            yield from _against(own, dict.fromkeys(listed, account), f"list of server {number}")
        free = [address for address, state in states.items() if state == AVAILABLE]
        listed = _list(f"{server}/v2/ips", token)
        expected, found = dict.fromkeys(free, AVAILABLE), dict.fromkeys(listed, AVAILABLE)
        yield from _against(expected, found, f"list of server {number}")


def _against(expected: dict[str, str], found: dict[str, str], where: str) -> Iterator[str]:
    for address in sorted(expected.keys() | found.keys()):
        right, wrong = expected.get(address), found.get(address)
        if right != wrong:
            yield f"{address}: {where} has {wrong}, not {right}"


def _list(url: str, token: str) -> Iterator[str]:
    headers = {"X-Auth-Token": token}
    reply = _HTTP.request("GET", f"{url}?paginate=false", headers=headers)
    return (line["ip"] for line in reply.json()["data"])
