"""The rate limits of requests with a valid token: per account, and per client's address.

Each limit is a token bucket, as in Crossbar (`kz_buckets.erl`). A bucket of Crossbar holds 100
tokens and gets 10 per second, but a request with a valid token costs nothing. In this service such
a request costs one or more, so the buckets are larger.
"""

import math
from collections.abc import Sequence

from kazoo_ips.errors import TooManyKeys
from kazoo_ips.model import KEY_SECONDS
from kazoo_ips.observability import request_context
from kazoo_ips.observability.metrics import Metrics
from kazoo_ips.processes.token_buckets import Balance, Bucket, TokenBuckets, client_network

BURST = 5
"""Seconds in which an empty bucket becomes full. An idle client can send the requests of that many
seconds at once."""


class RateLimits:
    """Limits requests.

    :param per_account: tokens of an account per second; 0 is no limit
    :param per_client: tokens of a client's address per second; 0 is no limit
    :param keys: new Idempotency-Keys of an account per day; 0 is no limit
    """

    def __init__(
        self,
        buckets: TokenBuckets,
        metrics: Metrics,
        *,
        per_account: int,
        per_client: int,
        keys: int,
    ) -> None:
        self._buckets = buckets
        self._metrics = metrics
        self._per_account = per_account
        self._per_client = per_client
        self._keys = keys

    def take(self, account_id: str, client: str, cost: int) -> Sequence[Balance]:
        """Take the tokens for a request from the buckets of the account and of the client.

        If one bucket has too few tokens, neither bucket changes, and the request must be refused.

        :param client: the client's address; if it is empty, only the account's bucket is used
        :param cost: the number of tokens; a bucket that holds fewer gives all that it holds
        :returns: the balance of each bucket; its key begins with `account` or `client`
        """
        buckets = []
        if self._per_account:
            rate = self._per_account
            buckets.append(Bucket(f"account {account_id}", rate * BURST, BURST))
        if self._per_client and client:
            rate = self._per_client
            buckets.append(Bucket(f"client {client_network(client)}", rate * BURST, BURST))
        if not buckets:
            return ()
        balances = self._buckets.take(buckets, cost)
        for balance in balances:
            if balance.wait:
                self._refused(balance.bucket.key.partition(" ")[0])
        return balances

    def take_key(self, account_id: str) -> None:
        """Count a new Idempotency-Key of an account.

        An account can use all keys of a day at once. After that it gets further keys one by one,
        at equal intervals. So the database has the records of at most two days' keys.

        :raises TooManyKeys: the account has used too many keys
        """
        if not self._keys:
            return
        [balance] = self._buckets.take([Bucket(f"key {account_id}", self._keys, KEY_SECONDS)], 1)
        if balance.wait:
            self._refused("key")
            raise TooManyKeys(math.ceil(balance.wait))

    def _refused(self, limit: str) -> None:
        self._metrics.requests_limited.labels(limit).inc()
        request_context.over_limit(limit)
