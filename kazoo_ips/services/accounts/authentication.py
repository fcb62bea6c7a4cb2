"""Authentication: verifies Kazoo's tokens, and issues them for logins.

A token is a JWT (RS256). Kazoo's nodes and this service accept each other's tokens. The claim
`identity_sig` binds a token to the secret of its user or account: if the secret changes, the token
becomes invalid (`core/kazoo_auth/src/kz_auth_jwt.erl`, `kz_auth_identity.erl`).
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
from kazoo_ips.model.token_restrictions import DEFAULT_LEVEL, level_rules
from kazoo_ips.repositories.accounts import one_spelling
from kazoo_ips.repositories.signing_keys import SigningKey, SigningKeyRepository
from kazoo_ips.services.accounts.account_tree import AccountService
from kazoo_ips.services.accounts.login_rate_limit import LoginRateLimit

ALGORITHM = "RS256"
ISSUER = "kazoo"
MAX_TOKEN = 8190
"""Maximum characters of a token, the maximum of a header. Kazoo's tokens have about 700."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login that succeeded: its token, and the caller that the token authenticates."""

    token: str
    caller: Caller


class AuthenticationService:
    """The use cases of authentication.

    :param clock: the time in Unix seconds
    :param lifetime: seconds that a token is valid
    :param cache_time: seconds that the caller of a token, and the signing key, are cached;
        `accounts` has its own cache of accounts and users
    :param refusal_time: seconds that a refused login takes, whatever the reason
    """

    def __init__(  # noqa: PLR0913 - each is one setting
        self,
        keys: SigningKeyRepository,
        accounts: AccountService,
        attempts: LoginRateLimit,
        *,
        clock: Callable[[], float],
        lifetime: int,
        cache_time: float,
        refusal_time: float,
    ) -> None:
        self._keys = keys
        self._accounts = accounts
        self._attempts = attempts
        self._clock = clock
        self._lifetime = lifetime
        self._refusal_time = refusal_time
        self._cache: TTLCache[Any, Any] = TTLCache(10_000, ttl=cache_time)
        self._lock = Lock()

    def authenticate(self, token: str) -> Caller:
        """Return the caller that a token authenticates.

        :raises InvalidCredentials: the token is malformed, not signed by this cluster or expired,
            or its account or user was deleted, disabled or got another secret
        """
        if len(token) > MAX_TOKEN:
            raise InvalidCredentials
        expires, caller = self._caller(token)
        if expires <= self._clock():
            raise InvalidCredentials
        return caller

    @cachedmethod(attrgetter("_cache"), key=methodkey, lock=attrgetter("_lock"))
    def _caller(self, token: str) -> tuple[int, Caller]:
        """Return the expiry of a token, in Unix seconds, and its caller.

        :raises InvalidCredentials: see `authenticate`
        """
        claims = self._read(token)
        account, user = self._identity(claims["account_id"], claims.get("owner_id"))
        self._check(account, user)
        if not hmac.compare_digest(
            self._signature(account, user).encode(), str(claims["identity_sig"]).encode()
        ):
            raise InvalidCredentials
        return claims["exp"], self._restricted(account, user, str(claims.get("method")))

    def authenticate_basic(self, account_id: str, credentials: str, client: str) -> Caller:
        """Return the caller of Crossbar's Basic authentication.

        The user name is the account's id, the password the MD5 of `user:password`.

        :param client: the client's address
        :raises InvalidCredentials: the credentials are wrong; raised after a constant time
        :raises TooManyAttempts: too many logins of the client or the account have failed
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
        return self._restricted(account, user, "cb_basic_auth")

    def _restricted(self, account: Account, user: User | None, method: str) -> Caller:
        """Return the caller, with the restrictions that Kazoo applies to its token.

        :param method: the authentication method, the name of a module of Crossbar
        """
        user_id = user.id if user else None
        if account.operator:
            return Caller(account, user_id)
        system = self._accounts.restrictions(None)
        templates = [self._accounts.restrictions(account.id), system]
        default = str(system.get("default_priv_level") or DEFAULT_LEVEL)
        rules = level_rules(templates, method, user.level if user else default)
        return Caller(account, user_id, rules)

    def log_in(self, login: Login, client: str) -> Session:
        """Issue a token for a user, by credentials and the account's realm or name.

        :param client: the client's address
        :raises InvalidCredentials: the login is wrong; raised after a constant time
        :raises TooManyAttempts: too many logins of the client or the account have failed
        """
        kind, value = ("realm", login.realm) if login.realm else ("name", login.name or "")
        account_name = f"{kind} {one_spelling(kind, value)}"
        with (
            ConstantTimeRefusal(self._refusal_time),
            self._attempts.attempt(client, account_name),
        ):
            for account in self._accounts_of(login):
                user = self._accounts.find_user(account.id, login.method, login.credentials)
                if user:
                    return self._open("cb_user_auth", account, user)
            raise InvalidCredentials

    def log_in_with_key(self, api_key: str, client: str) -> Session:
        """Issue a token for an account, by its API key.

        :param client: the client's address
        :raises InvalidCredentials: no account has the key; raised after a constant time
        :raises TooManyAttempts: too many logins of the client have failed
        """
        with ConstantTimeRefusal(self._refusal_time), self._attempts.attempt(client, None):
            for account in self._accounts.find("api_key", api_key):
                if hmac.compare_digest((account.api_key or "").encode(), api_key.encode()):
                    return self._open("cb_api_auth", account, None)
            raise InvalidCredentials

    def open_session(self, account: Account, user: User | None = None) -> Session:
        """Issue a token without a login, for commands that have the database's password."""
        return self._open("cb_user_auth" if user else "cb_api_auth", account, user)

    def ensure_key(self) -> None:
        """Create the cluster's signing key, unless it exists."""
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
        """Return the claims of a token, after checking its form and signature."""
        key = self._signing_key()
        try:
            if jwt.get_unverified_header(token).get("kid") != key.id:
                raise InvalidCredentials
            claims: dict[str, Any] = jwt.decode(
                token,
                key.private.public_key(),
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                # `authenticate` checks the expiry, so that tests can set the clock.
                options={
                    "verify_exp": False,
                    "require": ["exp", "iss", "account_id", "identity_sig"],
                },
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise InvalidCredentials from error
        texts = (claims["account_id"], claims["identity_sig"], claims.get("owner_id", ""))
        if not isinstance(claims["exp"], int) or not all(isinstance(t, str) for t in texts):
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
        if secret is None:  # without a secret no token was ever issued
            raise InvalidCredentials
        key = (secret + self._signing_key().identity_secret).encode()
        digest = hmac.digest(key, (user or account).id.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    @cachedmethod(attrgetter("_cache"), key=methodkey, lock=attrgetter("_lock"))
    def _signing_key(self) -> SigningKey:
        return self._keys.get()


class ConstantTimeRefusal:
    """Delays a refusal to a fixed time, so that its timing does not reveal the reason."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._until = time.monotonic() + self._seconds

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is InvalidCredentials:
            time.sleep(max(0.0, self._until - time.monotonic()))
