"""Who is calling: Kazoo's tokens read and made, logins turned into tokens.

A token is a JWT (RS256) that Kazoo nodes accept as their own and the other way round; it is bound
to its user or account by `identity_sig`, so that changing the secret there ends it
(`core/kazoo_auth/src/kz_auth_jwt.erl`, `kz_auth_identity.erl`). Knows neither HTTP nor CouchDB.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from threading import Lock
from typing import Any

import jwt
from cachetools import TTLCache, cachedmethod
from cachetools.keys import methodkey

from kazoo_ips.errors import AccountNotFound, DatastoreMissing, InvalidCredentials
from kazoo_ips.model import GREGORIAN_EPOCH, Account, Caller, Login, User
from kazoo_ips.repositories.accounts import one_spelling
from kazoo_ips.repositories.signing_keys import SigningKey, SigningKeyRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.login_rate_limit import LoginRateLimit

ALGORITHM = "RS256"
ISSUER = "kazoo"
MAX_TOKEN = 8190
"""Characters of a token: more than a header takes. Kazoo's have about 700."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login that went well: the token, and whose it is."""

    token: str
    caller: Caller


class AuthenticationService:
    """The use cases of authentication.

    :param clock: the time in Unix seconds
    :param lifetime: how long a token is good for, in seconds
    :param remember: how long, in seconds, it is known whom a token speaks for, and the key; what
        that rests on in `accounts` is remembered as long again
    :param refusal_time: seconds that a refused login takes, whatever was wrong with it
    """

    def __init__(  # noqa: PLR0913 - each is one setting
        self,
        keys: SigningKeyRepository,
        accounts: AccountService,
        attempts: LoginRateLimit,
        *,
        clock: Callable[[], float],
        lifetime: int,
        remember: float,
        refusal_time: float,
    ) -> None:
        self._keys = keys
        self._accounts = accounts
        self._attempts = attempts
        self._clock = clock
        self._lifetime = lifetime
        self._refusal_time = refusal_time
        self._known: TTLCache[Any, Any] = TTLCache(10_000, ttl=remember)
        self._lock = Lock()

    def authenticate(self, token: str) -> Caller:
        """Who a token speaks for.

        :raises InvalidCredentials: it is not a token, not ours, expired, or its account or user
            is gone, disabled or has another secret by now
        """
        if len(token) > MAX_TOKEN:
            raise InvalidCredentials
        expires, caller = self._caller(token)
        if expires <= self._clock():
            raise InvalidCredentials
        return caller

    @cachedmethod(attrgetter("_known"), key=methodkey, lock=attrgetter("_lock"))
    def _caller(self, token: str) -> tuple[int, Caller]:
        """Until when a token is good, in Unix seconds, and who it speaks for.

        :raises InvalidCredentials: as `authenticate` has it
        """
        claims = self._read(token)
        account, user = self._identity(claims["account_id"], claims.get("owner_id"))
        self._check(account, user)
        if not hmac.compare_digest(
            self._signature(account, user).encode(), str(claims["identity_sig"]).encode()
        ):
            raise InvalidCredentials
        return claims["exp"], Caller(account, user.id if user else None)

    def authenticate_basic(self, account_id: str, credentials: str, client: str) -> Caller:
        """Who `account_id:md5 of user:password` speaks for, Crossbar's Basic authentication.

        :param client: the address it comes from
        :raises InvalidCredentials: it does not fit, after the same time whatever was wrong
        :raises TooManyAttempts: too many have not
        """
        with (
            ConstantTimeRefusal(self._refusal_time),
            self._attempts.attempt(client, f"id {account_id}"),
        ):
            return self._basic(account_id, credentials)

    def _basic(self, account_id: str, credentials: str) -> Caller:
        try:
            account = self._accounts.fetch(account_id)
            user = self._accounts.find_user(account_id, "md5", credentials)
        except (AccountNotFound, DatastoreMissing) as error:
            raise InvalidCredentials from error
        if user is None:
            raise InvalidCredentials
        self._check(account, user)
        return Caller(account, user.id)

    def log_in(self, login: Login, client: str) -> Session:
        """A token for a user, by credentials and the account's realm or name.

        :param client: the address it comes from
        :raises InvalidCredentials: it does not fit, after the same time whatever was wrong
        :raises TooManyAttempts: too many have not
        """
        kind, word = ("realm", login.realm) if login.realm else ("name", login.name or "")
        named = f"{kind} {one_spelling(kind, word)}"
        with ConstantTimeRefusal(self._refusal_time), self._attempts.attempt(client, named):
            for account in self._accounts_of(login):
                user = self._accounts.find_user(account.id, login.method, login.credentials)
                if user:
                    return self._open("cb_user_auth", account, user)
            raise InvalidCredentials

    def log_in_with_key(self, api_key: str, client: str) -> Session:
        """A token for an account, by its API key.

        :param client: the address it comes from
        :raises InvalidCredentials: no account has it, after the same time whatever was wrong
        :raises TooManyAttempts: too many were nobody's
        """
        with ConstantTimeRefusal(self._refusal_time), self._attempts.attempt(client, None):
            for account in self._accounts.find("api_key", api_key):
                if hmac.compare_digest((account.api_key or "").encode(), api_key.encode()):
                    return self._open("cb_api_auth", account, None)
            raise InvalidCredentials

    def open_session(self, account: Account, user: User | None = None) -> Session:
        """A token without a login, for whoever has the database's password anyway."""
        return self._open("cb_user_auth" if user else "cb_api_auth", account, user)

    def ensure_key(self) -> None:
        """Make the cluster's signing key unless there is one."""
        self._keys.get()

    def _accounts_of(self, login: Login) -> list[Account]:
        if login.realm:
            return self._accounts.find("realm", login.realm)
        return self._accounts.find("name", login.name) if login.name else []

    def _open(self, method: str, account: Account, user: User | None) -> Session:
        self._check(account, user)
        account, user = self._accounts.ensure_secrets(account, user)
        key = self._signing_key()
        claims = {
            "iss": ISSUER,
            "identity_sig": self._signature(account, user),
            "account_id": account.id,
            **({"owner_id": user.id} if user else {}),
            "method": method,
            "exp": int(self._clock()) + self._lifetime,
        }
        token = jwt.encode(claims, key.private, ALGORITHM, headers={"kid": key.id})
        return Session(token, Caller(account, user.id if user else None))

    def _read(self, token: str) -> dict[str, Any]:
        """The claims of a token whose form and signature are right."""
        key = self._signing_key()
        try:
            if jwt.get_unverified_header(token).get("kid") != key.id:
                raise InvalidCredentials
            claims: dict[str, Any] = jwt.decode(
                token,
                key.private.public_key(),
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # The clock is ours, so that recorded tokens can be checked.
                options={
                    "verify_exp": False,
                    "require": ["exp", "iss", "account_id", "identity_sig"],
                },
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidCredentials from error
        words = (claims["account_id"], claims["identity_sig"], claims.get("owner_id", ""))
        if not isinstance(claims["exp"], int) or not all(isinstance(w, str) for w in words):
            raise InvalidCredentials
        return claims

    def _identity(self, account_id: str, user_id: str | None) -> tuple[Account, User | None]:
        try:
            account = self._accounts.fetch(account_id)
        except AccountNotFound as error:
            raise InvalidCredentials from error
        if not user_id:
            return account, None
        user = self._accounts.fetch_user(account_id, user_id)
        if user is None:
            raise InvalidCredentials
        return account, user

    def _check(self, account: Account, user: User | None) -> None:
        if not account.is_active(int(self._clock()) + GREGORIAN_EPOCH):
            raise InvalidCredentials
        if user is not None and not user.enabled:
            raise InvalidCredentials

    def _signature(self, account: Account, user: User | None) -> str:
        secret = (user or account).signature_secret
        if secret is None:  # then no token was ever bound to it
            raise InvalidCredentials
        key = (secret + self._signing_key().identity_secret).encode()
        digest = hmac.digest(key, (user or account).id.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @cachedmethod(attrgetter("_known"), key=methodkey, lock=attrgetter("_lock"))
    def _signing_key(self) -> SigningKey:
        return self._keys.get()


class ConstantTimeRefusal:
    """Lets a refusal take a fixed time, so that it does not tell how far the check came."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._until = time.monotonic() + self._seconds

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is InvalidCredentials:
            time.sleep(max(0.0, self._until - time.monotonic()))
