"""Every setting of the service: its environment variable, its default and one line of help."""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote, urlsplit

_PREFIX = "KAZOO_IPS_"
_OTHERS = (
    "KAZOO_IPS_DATA", "KAZOO_IPS_ROOT", "KAZOO_IPS_URL", "KAZOO_IPS_TOKEN", "KAZOO_IPS_PROFILE",
    "KAZOO_IPS_CA_FILE",
)  # fmt: skip
"""Environment variables of `make run`, of `make deploy` and of commands at a URL. They begin with
the prefix, but are not settings of the service."""


class BadSetting(ValueError):
    """A setting has an invalid value. The message names the setting."""


def _setting(name: str, default: Any, help: str) -> Any:
    return field(default=default, metadata={"name": name, "help": help})


@dataclass(frozen=True)
class Settings:
    """The service's settings, read once at startup."""

    couchdb_url: str = _setting(
        "COUCHDB_URL",
        "http://127.0.0.1:5984",
        "CouchDB, with user and password: http://user:password@host:5984",
    )
    couchdb_admin_url: str = _setting(
        "COUCHDB_ADMIN_URL",
        "",
        "the same CouchDB with an administrator's name and password; only for commands",
    )
    prefix: str = _setting("KAZOO_IPS_PREFIX", "", "prefix of every database's name; for tests")
    connect_timeout: float = _setting(
        "KAZOO_IPS_CONNECT_TIMEOUT", 1.0, "seconds to wait for a connection to CouchDB"
    )
    read_timeout: float = _setting(
        "KAZOO_IPS_READ_TIMEOUT", 5.0, "seconds to wait for a response of CouchDB"
    )
    write_quorum: str = _setting(
        "KAZOO_IPS_WRITE_QUORUM",
        "majority",
        "replicas that a write must reach: `majority` or `all`",
    )
    token_lifetime: int = _setting(
        "KAZOO_IPS_TOKEN_LIFETIME", 3600, "seconds that a token is valid"
    )
    identity_cache: float = _setting(
        "KAZOO_IPS_IDENTITY_CACHE",
        3.0,
        "seconds that a token's account and user are cached, at most 4",
    )
    refusal_time: float = _setting(
        "KAZOO_IPS_REFUSAL_TIME", 0.1, "seconds that a refused login takes, whatever the reason"
    )
    login_limit: int = _setting(
        "KAZOO_IPS_LOGIN_LIMIT",
        10,
        "failed logins per client and account in 10 minutes; 0 is no limit",
    )
    account_limit: int = _setting(
        "KAZOO_IPS_ACCOUNT_LIMIT",
        100,
        "requests per second of one account, five times as many at once; 0 is no limit",
    )
    client_limit: int = _setting(
        "KAZOO_IPS_CLIENT_LIMIT",
        200,
        "the same for one client's address, and for a /64 network of IPv6",
    )
    key_limit: int = _setting(
        "KAZOO_IPS_KEY_LIMIT",
        10_000,
        "new Idempotency-Keys of one account per day; 0 is no limit",
    )
    trusted_proxies: str = _setting(
        "KAZOO_IPS_TRUSTED_PROXIES",
        "127.0.0.1 ::1",
        "addresses and networks of proxies whose X-Forwarded-For is trusted",
    )
    bind: str = _setting(
        "KAZOO_IPS_BIND",
        "127.0.0.1:8000",
        "addresses to listen on: host:port or [::]:port, separated by commas",
    )
    workers: int = _setting("KAZOO_IPS_WORKERS", 2, "gunicorn's worker processes")
    threads: int = _setting("KAZOO_IPS_THREADS", 16, "threads of each worker")
    client_timeout: float = _setting(
        "KAZOO_IPS_CLIENT_TIMEOUT",
        10.0,
        "seconds that a client may take to send a request, or to read a part of a reply",
    )
    max_requests: int = _setting(
        "KAZOO_IPS_MAX_REQUESTS",
        1_000_000,
        "requests after which a worker is replaced by a new one; 0 is never",
    )
    history_years: int = _setting(
        "KAZOO_IPS_HISTORY_YEARS",
        0,
        "past years whose history is kept, beside the current one; 0 is all",
    )
    low_percent: float = _setting(
        "KAZOO_IPS_LOW_PERCENT",
        10.0,
        "percentage of available addresses at which a zone is low; 0 is never",
    )
    doctor_hours: str = _setting(
        "KAZOO_IPS_DOCTOR_HOURS",
        "2-5",
        "hours in UTC between which the doctor runs by itself once a day, or `never`",
    )
    webhook_limit: int = _setting(
        "KAZOO_IPS_WEBHOOK_LIMIT", 20, "webhooks of one account; the operator may have 100"
    )
    webhook_networks: str = _setting(
        "KAZOO_IPS_WEBHOOK_NETWORKS",
        "",
        "networks that webhooks may reach although they are not public",
    )
    log_level: str = _setting("KAZOO_IPS_LOG_LEVEL", "info", "debug, info, warning or error")
    log_format: str = _setting(
        "KAZOO_IPS_LOG_FORMAT", "json", "json: one object a line, or text: for human readers"
    )
    syslog: str = _setting(
        "KAZOO_IPS_SYSLOG",
        "/dev/log",
        "the system's log, for audit lines of commands; standard error if missing",
    )
    metrics_token: str = _setting(
        "KAZOO_IPS_METRICS_TOKEN", "", "bearer token that /metrics requires; none if empty"
    )

    amqp_url: str = _setting(
        "KAZOO_IPS_AMQP_URL",
        "",
        "Kazoo's message bus: amqp://user:password@host:5672, one for each zone",
    )
    crossbar_url: str = _setting(
        "KAZOO_IPS_CROSSBAR_URL", "", "Crossbar, which reconciles accounts: http://host:8000"
    )

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> "Settings":
        """Read the settings from an environment. A setting that is not set has its default.

        :raises BadSetting: a value has the wrong type or is out of range, or a name is unknown
        """
        names = [setting.metadata["name"] for setting in fields(cls)]
        for name in environ:
            if name.startswith(_PREFIX) and name not in (*names, *_OTHERS):
                raise BadSetting(f"{name}: no such setting{_hint(name, names)}")
        values = {}
        for setting in fields(cls):
            name = setting.metadata["name"]
            if environ.get(name):
                values[setting.name] = _read(name, environ[name], type(setting.default))
        settings = cls(**values)
        settings._check()
        return settings

    def brokers(self) -> "list[BrokerURL]":
        """Return the parts of each URL in `amqp_url`. Blanks or commas separate the URLs."""
        return [_broker(word) for word in self.amqp_url.replace(",", " ").split()]

    def doctor_window(self) -> tuple[int, int] | None:
        """Return the first and the last hour of `doctor_hours`, from 0 to 24.

        :returns: None for `never`, and for an invalid value
        """
        hours = re.fullmatch(r"([01]?\d|2[0-3])-([01]?\d|2[0-4])", self.doctor_hours)
        if hours is None or int(hours[1]) == int(hours[2]) % 24:
            return None
        return int(hours[1]), int(hours[2])

    def as_administrator(self) -> "Settings":
        """Return the settings with the administrator's CouchDB URL, if it is set."""
        return replace(self, couchdb_url=self.couchdb_admin_url or self.couchdb_url)

    def _check(self) -> None:
        ranges = {
            "KAZOO_IPS_CONNECT_TIMEOUT": 0 < self.connect_timeout <= 3600,
            "KAZOO_IPS_READ_TIMEOUT": 0 < self.read_timeout <= 3600,
            "KAZOO_IPS_TOKEN_LIFETIME": self.token_lifetime > 0,
            "KAZOO_IPS_IDENTITY_CACHE": 0 <= self.identity_cache <= 4,
            "KAZOO_IPS_REFUSAL_TIME": 0 <= self.refusal_time <= 3600,
            "KAZOO_IPS_LOGIN_LIMIT": 0 <= self.login_limit <= 1_000_000,
            "KAZOO_IPS_ACCOUNT_LIMIT": 0 <= self.account_limit <= 1_000_000,
            "KAZOO_IPS_CLIENT_LIMIT": 0 <= self.client_limit <= 1_000_000,
            "KAZOO_IPS_KEY_LIMIT": 0 <= self.key_limit <= 1_000_000,
            "KAZOO_IPS_WEBHOOK_LIMIT": 0 <= self.webhook_limit <= 1000,
            "KAZOO_IPS_CLIENT_TIMEOUT": 0 < self.client_timeout <= 3600,
            "KAZOO_IPS_HISTORY_YEARS": 0 <= self.history_years <= 1000,
            "KAZOO_IPS_LOW_PERCENT": 0 <= self.low_percent <= 90,
            "KAZOO_IPS_DOCTOR_HOURS": self.doctor_hours == "never" or bool(self.doctor_window()),
            "KAZOO_IPS_WORKERS": self.workers > 0,
            "KAZOO_IPS_THREADS": self.threads > 0,
            "KAZOO_IPS_MAX_REQUESTS": self.max_requests >= 0,
            "KAZOO_IPS_WRITE_QUORUM": self.write_quorum in ("majority", "all"),
            "KAZOO_IPS_BIND": all(_is_bind(each.strip()) for each in self.bind.split(",")),
            "KAZOO_IPS_LOG_LEVEL": self.log_level in ("debug", "info", "warning", "error"),
            "KAZOO_IPS_LOG_FORMAT": self.log_format in ("json", "text"),
        }
        for name, holds in ranges.items():
            if not holds:
                raise BadSetting(f"{name}: out of range")
        urls = {"COUCHDB_URL": self.couchdb_url, "COUCHDB_ADMIN_URL": self.couchdb_admin_url}
        for name, url in urls.items():
            if url and not _is_url(url):
                raise BadSetting(
                    f"{name}: {_without_password(url)!r} is not of the form"
                    " http://user:password@host:5984, with / : @ in the password percent-encoded"
                )
        self._check_receivers()
        _check_networks("KAZOO_IPS_TRUSTED_PROXIES", self.trusted_proxies)
        _check_networks("KAZOO_IPS_WEBHOOK_NETWORKS", self.webhook_networks)

    def _check_receivers(self) -> None:
        """Check the URLs of the systems that get events: the brokers and Crossbar.

        :raises BadSetting: a URL is invalid, or two URLs name the same broker
        """
        labels = set()
        for word in self.amqp_url.replace(",", " ").split():
            try:
                broker = _broker(word)
            except ValueError as error:
                raise BadSetting(
                    f"KAZOO_IPS_AMQP_URL: {_without_password(word)!r} is not of the form"
                    " amqp://user:password@host:5672 or amqps://…, with / : @ in the password"
                    " percent-encoded"
                ) from error
            if broker.label in labels:
                raise BadSetting(f"KAZOO_IPS_AMQP_URL: {broker.label} is named twice")
            labels.add(broker.label)
        url = self.crossbar_url
        if url and (not _is_url(url) or "@" in url or "?" in url or "#" in url):
            raise BadSetting(
                f"KAZOO_IPS_CROSSBAR_URL: {_without_password(url)!r} is not of the form"
                " http://host:8000, without user and password"
            )


@dataclass(frozen=True)
class BrokerURL:
    """The parts of the URL of a broker.

    :param label: host, port and virtual host: the name of the broker in log lines and metrics
    """

    label: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    virtual_host: str
    tls: bool


def _broker(url: str) -> BrokerURL:
    """Return the parts of the URL of a broker.

    :raises ValueError: it is not an AMQP URL
    """
    parts = urlsplit(url)
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname or parts.port == 0:
        raise ValueError
    path = parts.path.removeprefix("/")
    if parts.query or parts.fragment or "/" in path:
        raise ValueError
    tls = parts.scheme == "amqps"
    port = parts.port or (5671 if tls else 5672)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return BrokerURL(
        label=f"{host}:{port}" + (f"/{path}" if unquote(path) not in ("", "/") else ""),
        host=parts.hostname,
        port=port,
        # RabbitMQ's own defaults. RabbitMQ accepts them only from its own machine.
        user=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(path) or "/",
        tls=tls,
    )


def _check_networks(name: str, text: str) -> None:
    for word in text.replace(",", " ").split():
        try:
            ipaddress.ip_network(word)
        except ValueError as error:
            raise BadSetting(
                f"{name}: {word!r} is not an address, and not a network without host bits"
            ) from error


def _hint(name: str, names: Iterable[str]) -> str:
    """Return the text that names the most similar setting, for an error; empty if there is none.

    The common prefix is not compared.
    """
    words = {each.removeprefix(_PREFIX): each for each in names}
    likely = get_close_matches(name.removeprefix(_PREFIX), words, 1)
    return f"; did you mean {words[likely[0]]}?" if likely else ""


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is not a number, for example because a password contains a slash
        return False


def _without_password(text: str) -> str:
    """Return an invalid URL for an error, with `***` in place of a possible password."""
    scheme = re.match(r"\w+://|", text)
    assert scheme is not None
    _, at, host = text[scheme.end() :].rpartition("@")
    # Text after a colon that is not a port may be a password, if the host is missing.
    host = re.sub(r":(?!\d+(/|$)).*", ":***", host)
    return f"{scheme[0]}{'***@' if at else ''}{host}"


def _is_bind(text: str) -> bool:
    """Return whether gunicorn can listen on it: host and port, path of a socket, or descriptor."""
    if text.startswith("unix:"):
        return len(text) > len("unix:")
    if text.startswith("fd://"):
        return text.removeprefix("fd://").isdecimal()
    try:
        parts = urlsplit(f"//{text}")
        return bool(parts.hostname) and parts.port is not None and parts.path == ""
    except ValueError:
        return False


def _read(name: str, text: str, kind: type) -> Any:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        # Python decodes bytes that are not UTF-8 to halves of surrogate pairs.
        raise BadSetting(f"{name}: not UTF-8")
    try:
        return kind(text)
    except ValueError as error:
        what = "a whole number" if kind is int else "a number"
        raise BadSetting(f"{name}: {text!r} is not {what}") from error
