"""CouchDB without any code of the service, and documents as Kazoo writes them."""

import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import urllib3


class Databases:
    """The databases of one prefix, used without any code of the service."""

    def __init__(self, url: str, prefix: str) -> None:
        parts = urlsplit(url)
        self._url = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        self._prefix = prefix
        self._pool = urllib3.PoolManager()
        self._headers = {"Content-Type": "application/json"}
        if parts.username:
            password = unquote(f"{parts.username}:{parts.password}")
            self._headers["Authorization"] = f"Basic {b64encode(password.encode()).decode()}"

    def __call__(self, method: str, database: str, rest: str = "", body: Any = None) -> Any:
        """Send a request, and return the response, which has to be a success."""
        url = f"{self._url}/{quote(self._prefix + database, safe='')}{rest}"
        sent = None if body is None else json.dumps(body)
        answer = self._pool.request(method, url, body=sent, headers=self._headers, timeout=60)
        assert answer.status < 300, (method, url, answer.status, answer.data)
        return answer.json()

    def get(self, database: str, document_id: str) -> dict[str, Any]:
        """A document."""
        found: dict[str, Any] = self("GET", database, f"/{quote(document_id, safe='')}")
        return found

    def find(self, database: str, document_id: str) -> dict[str, Any] | None:
        """A document, or None."""
        answer = self("POST", database, "/_all_docs?include_docs=true", {"keys": [document_id]})
        document: dict[str, Any] | None = answer["rows"][0].get("doc")
        return document

    def put(self, database: str, *documents: dict[str, Any]) -> None:
        """Write documents; each write has to succeed."""
        answer = self("POST", database, "/_bulk_docs", {"docs": documents})
        assert not [row for row in answer if "error" in row]

    def change(self, database: str, document_id: str, **fields: Any) -> None:
        """Change fields of a document; None removes a field."""
        changed = {**self.get(database, document_id), **fields}
        self.put(database, {k: v for k, v in changed.items() if v is not None})


def account_database(account_id: str) -> str:
    """The name of an account's database."""
    return f"account/{account_id[:2]}/{account_id[2:4]}/{account_id[4:]}"


def kazoo_document(
    address: str,
    zone: str = "us-east",
    host: str = "proxy1.example.com",
    owner: str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return the document of a dedicated IP as a Kazoo node writes it."""
    document = {
        "_id": address,
        "pvt_vsn": "1",
        "pvt_status": "assigned" if owner else "available",
        "pvt_type": "dedicated_ip",
        "pvt_zone": zone,
        "pvt_host": host,
        "pvt_modified": 63962594296,
        "pvt_created": 63962594117,
        **more,
    }
    return {**document, "pvt_assigned_to": owner} if owner else document
