"""Clients that read and write without a pause, and count the replies."""

import http.client
import json
import threading
from collections import Counter
from typing import Self
from urllib.parse import urlsplit


class Load:
    """Three clients of a service that run inside a `with`. `outcomes` counts the replies.

    The first one reads over one connection as long as the server keeps it open. The second one
    reads over a new connection each time. The third one assigns and releases an address
    repeatedly.

    :param url: the service
    :param account: the account of the token
    :param address: an available address
    """

    def __init__(self, url: str, token: str, account: str, address: str) -> None:
        self.outcomes: Counter[tuple[str, int | str]] = Counter()
        self._place = urlsplit(url)
        self._headers = {"X-Auth-Token": token}
        self._path = f"/v2/accounts/{account}/ips"
        self._address = address
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=each)
            for each in (self._read_on, self._read_anew, self._assign_and_release)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def served(self) -> int:
        """The number of expected replies."""
        return sum(n for (_, status), n in self.outcomes.items() if status == 200)

    @property
    def lost(self) -> dict[tuple[str, int | str], int]:
        """The other outcomes, with the number of each."""
        return {key: n for key, n in self.outcomes.items() if key[1] != 200}

    def _connection(self) -> http.client.HTTPConnection:
        assert self._place.hostname
        return http.client.HTTPConnection(self._place.hostname, self._place.port, timeout=30)

    def _ask(self, who: str, connection: http.client.HTTPConnection, method: str) -> None:
        path = self._path if method == "GET" else f"{self._path}/{self._address}"
        outcome: int | str
        try:
            connection.request(method, path, headers=self._headers)
            reply = connection.getresponse()
            body = reply.read()
            outcome = reply.status
            json.loads(body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            outcome = repr(error)
            connection.close()
        self.outcomes[who, outcome] += 1

    def _read_on(self) -> None:
        connection = self._connection()  # opened again after the server has closed it
        while not self._stop.wait(0.02):
            self._ask("kept connection", connection, "GET")
        connection.close()

    def _read_anew(self) -> None:
        while not self._stop.wait(0.02):
            connection = self._connection()
            self._ask("new connection", connection, "GET")
            connection.close()

    def _assign_and_release(self) -> None:
        while not self._stop.wait(0.02):
            for method in ("POST", "DELETE"):
                connection = self._connection()
                self._ask(method, connection, method)
                connection.close()
