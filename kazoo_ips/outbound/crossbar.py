"""The client of Crossbar, Kazoo's API: it asks for the reconciliation of an account's services."""

import json

from kazoo_ips.errors import ReceiverUnavailable
from kazoo_ips.outbound.http_sender import HTTPRequest, HTTPSender

TIMEOUT = 15.0
"""Seconds until the whole response must have arrived. A reconciliation can call the API of a
bookkeeper."""
MAX_BODY = 65536
"""Bytes of a response that are read. Crossbar's envelope has less than a thousand."""
_AGENT = "kazoo_ips"


class Crossbar:
    """Sends requests to one Crossbar.

    :param url: `http://host:8000` or `https://…`, perhaps with a path in front of `/v2`
    :param timeout: seconds until a whole response must have arrived
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self._url = url.rstrip("/")
        # The operator has named this server, so it may have any address.
        self._sender = HTTPSender(None, timeout=timeout, body_limit=MAX_BODY, body_seconds=timeout)

    def reconcile(self, account_id: str, token: str) -> int:
        """Ask for the reconciliation of an account's services.

        Redirects are not followed.

        :returns: the status of the response: 200 if Crossbar says that it is done; 0 if a success
            is not in Crossbar's form, so that another server may have answered
        :raises ReceiverUnavailable: there is no complete response
        """
        headers = {
            "X-Auth-Token": token,
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": _AGENT,
        }
        uri = f"{self._url}/v2/accounts/{account_id}/services/reconciliation"
        result = self._sender.send(HTTPRequest("POST", uri, headers, b'{"data":{}}'))
        if result.status is None or not result.is_whole:
            raise ReceiverUnavailable(
                f"Crossbar: {result.error or 'the response is not complete'}"
            )
        if _is_done(result.status, result.body):
            return 200
        return 0 if 200 <= result.status < 300 else result.status


def _is_done(status: int, body: bytes) -> bool:
    """Whether a response is Crossbar's, and says that the request is done."""
    if not 200 <= status < 300:
        return False
    try:
        envelope = json.loads(body)
    except ValueError:  # it is no JSON, or not UTF-8
        return False
    return isinstance(envelope, dict) and envelope.get("status") == "success"
