"""Crossbar's envelope: reads it from requests, and builds it for replies.

No other module handles the members of the envelope. Requests are read as leniently as Crossbar
reads them (`api_util.erl`): JSON may have any content type that curl or a browser sends with it,
or none. The body may be missing if no data is required.
"""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
from flask import Request, Response, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from kazoo_ips import error_texts
from kazoo_ips.api import content_coding
from kazoo_ips.errors import ValidationFailed

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

_JSON_TYPES = re.compile(r"(application/(x-)?json|text/(x-)?json|.*\+json|)$")
JSON = ("Content-Type", "application/json")
"""The header of every reply with an envelope."""
_FORM = "application/x-www-form-urlencoded"
_MAX_NESTING = 50
"""Levels of objects and lists in a body. An error reply quotes values of the body, and validation
and the JSON encoder take several stack frames for each level."""

NODE = base64.urlsafe_b64encode(
    hashlib.md5(socket.gethostname().encode(), usedforsecurity=False).digest()
).decode()[:22]
VERSION = version("kazoo_ips")


@dataclass(frozen=True)
class Envelope:
    """The envelope of a request.

    :param members: `data` and the other members, their names in lower case
    :param problem: the error that the body has caused, if any; `check` raises it
    """

    members: Mapping[str, Any] = field(default_factory=dict)
    problem: Exception | None = None

    @property
    def has_data(self) -> bool:
        """Whether the envelope has `data` that is not null."""
        return self.members.get("data") is not None

    def text(self, name: str) -> str | None:
        """Return a parameter if it is a string, from `data`, the query or the envelope.

        The first of them that has the parameter is used, as in Crossbar.
        """
        data = self.members.get("data")
        in_data = data.get(name) if isinstance(data, dict) else None
        value = in_data or request.args.get(name) or self.members.get(name)
        return value if isinstance(value, str) else None

    def value(self, name: str) -> Any:
        """Return a parameter of any type, from `data`, the query or the envelope; None if empty.

        The first of them that has the parameter is used.
        """
        return next((value for value in self.all(name) if value not in (None, "")), None)

    def all(self, name: str) -> list[Any]:
        """Return all values of a parameter in `data`, the query and the envelope."""
        data = self.members.get("data")
        in_data = [data[name]] if isinstance(data, dict) and name in data else []
        in_envelope = [self.members[name]] if name in self.members else []
        return [*in_data, *request.args.getlist(name), *in_envelope]

    @property
    def other_members(self) -> set[str]:
        """The names of the members besides `data`."""
        return {*self.members} - {"data"}

    def data(self, *, required: bool = True) -> dict[str, Any]:
        """Return the `data` object.

        :param required: whether a request without a body is an error
        :raises ValidationFailed: `data` is missing or not an object
        """
        self.check()
        if not self.members and not required and not request.get_data():
            return {}
        if not self.has_data:
            rest = {k: v for k, v in self.members.items() if v is not None}
            fail("data", "required", "Field is required but missing", value=rest)
        data = self.members["data"]
        if not isinstance(data, dict):
            fail(
                "data",
                "type",
                "Value did not match type(s): object",
                target="object",
                value=data,
            )
        return dict(data)

    def check(self) -> None:
        """Raise the error that the body has caused, if any."""
        if self.problem:
            raise self.problem


_NOTHING = Envelope()
"""The envelope of a request without a body."""


def fail(path: str, rule: str, message: str, **more: Any) -> NoReturn:
    """Refuse a request that breaks one rule, in the form of Crossbar's validation errors.

    :raises ValidationFailed: always
    """
    raise ValidationFailed({path: {rule: {"message": message, **more}}})


def read() -> Envelope:
    """Return the request's envelope. `check`, called after the authorisation, raises its error."""
    try:
        body = _body()
        if not body:
            return _NOTHING
        if not (_JSON_TYPES.match(request.mimetype) or request.mimetype == _FORM):
            raise UnsupportedMediaType
        members = _parsed(body)
    except (HTTPException, ValidationFailed) as error:
        return Envelope(problem=error)
    return Envelope({k.lower(): v for k, v in members.items()})


def _parsed(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body.

    :raises ValidationFailed: it is not JSON, or not an object
    """
    try:
        members = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
        # This refuses lone surrogates, and numbers such as 1e999 that become infinity.
        json.dumps(members, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise _bad_json(error_texts.of_json(error)) from error
    if not isinstance(members, dict):
        raise _bad_json("All JSON must be valid")
    # Nothing is nested deeper than the number of opening brackets, which is quick to count.
    if body.count(b"{") + body.count(b"[") > _MAX_NESTING and _is_too_deep(members):
        raise _bad_json(error_texts.of_json(RecursionError()))
    return members


def _is_too_deep(value: Any) -> bool:
    """Return whether objects and lists are nested more than `_MAX_NESTING` levels deep."""
    level = [value]
    for _ in range(_MAX_NESTING):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _body() -> bytes:
    if not {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"} & request.environ.keys():
        return b""
    try:
        body = request.get_data()
    except RequestEntityTooLarge:
        raise
    # For a malformed chunk or an incomplete body, each server raises another class.
    except Exception as error:
        timed_out = isinstance(error.__context__ or error, TimeoutError)
        raise (RequestTimeout if timed_out else BadRequest) from error
    # Without a Content-Length, the framework truncates a body that is too long.
    limit = request.max_content_length or 0
    if request.content_length is None and len(body) >= limit:
        raise RequestEntityTooLarge
    if "HTTP_CONTENT_ENCODING" not in request.environ:
        return body
    try:
        return content_coding.decode(body, request.headers["Content-Encoding"], limit)
    except content_coding.BadCoding as error:
        raise _bad_json(str(error)) from error


def _no_constant(name: str) -> NoReturn:
    raise _bad_json(f"{name} is not JSON")


def _bad_json(message: str) -> ValidationFailed:
    return ValidationFailed({"json": {"invalid": {"message": message, "target": "body"}}})


def request_and_state() -> tuple[Request, Any]:
    """Return the objects behind Flask's `request` and `g`.

    Access to an attribute takes ten times as long through Flask's proxies.
    """
    return request._get_current_object(), g._get_current_object()  # type: ignore[attr-defined]


def success(
    data: Any, *, status: int = 200, revision: str | None = None, **members: Any
) -> Response:
    """Return the reply to a successful request.

    :param status: the HTTP status; a dry run always has 200
    :param revision: the revision of the document that `data` shows; without it, a digest of `data`
    :param members: further members of the envelope; those that are None are left out
    """
    text = dump(data)
    revision = revision or digest(text)
    headers = {"ETag": f'"{revision}"'}
    incoming, state = request_and_state()
    conditional = incoming.method in ("GET", "HEAD") and "HTTP_IF_NONE_MATCH" in incoming.environ
    if conditional and incoming.if_none_match.contains_weak(revision):
        return Response(status=304, headers=headers)
    rest = {"status": "success", "revision": revision, **_present(members), **_common(state)}
    status = 200 if state.get("dry_run") else status
    return _json(b'{"data":%b,%b' % (text, dump(rest)[1:]), status, headers)


def stream(items: Iterable[Any]) -> Response:
    """Return a reply that streams a list of any length.

    :param items: the list in parts, each a list
    :returns: a reply without an ETag, because the revision is known only at the end of the body
    """
    common = _common(g)

    def parts() -> Iterator[bytes]:
        hashed = hashlib.sha256()
        opening = b"["
        yield b'{"data":'
        for chunk in items:
            text = opening + dump(chunk)[1:-1]
            opening = b","
            hashed.update(text)
            yield text
        ending = b"]" if opening == b"," else b"[]"
        hashed.update(ending)
        rest = {"status": "success", "revision": hashed.hexdigest()[:32], **common}
        yield b"%b,%b" % (ending, dump(rest)[1:])

    return _json(read_ahead(parts()), 200)


def read_ahead(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Return the same parts with the first two read now.

    If an error occurs while these parts are read, the service can still send an error reply.
    """
    return chain(list(islice(parts, 2)), parts)


def failure(code: int, message: str, data: Mapping[str, Any]) -> Response:
    """Return the reply to a request that failed.

    :param code: the HTTP status; the member `error` has it as a string
    """
    body = {
        "data": data,
        "status": "error",
        "error": str(code),
        "message": message,
        **_common(g),
    }
    return _json(dump(body), code)


def replay(body: Mapping[str, Any], status: int) -> Response:
    """Return a stored reply with the token of the current request.

    :param body: the envelope without a token
    """
    token = g.get("auth_token")
    return _json(dump({**body, **({"auth_token": token} if token else {})}), status)


def dump(value: Any) -> bytes:
    """Return JSON in UTF-8, without spaces."""
    try:
        return msgspec.json.encode(value)
    # An error reply can quote a value that msgspec refuses: deep nesting, or a lone surrogate.
    except (RecursionError, UnicodeEncodeError):
        return json.dumps(value, separators=(",", ":")).encode()


def digest(text: bytes) -> str:
    """Return the revision of a reply that does not show one document."""
    return hashlib.sha256(text).hexdigest()[:32]


def _json(
    body: bytes | Iterator[bytes], status: int, headers: Mapping[str, str] | None = None
) -> Response:
    more = (headers or {}).items()
    if isinstance(body, bytes):
        return _JSONReply([body], status, [JSON, ("Content-Length", str(len(body))), *more])
    return _JSONReply(body, status, [JSON, *more])


class _JSONReply(Response):
    """A reply with an envelope. It has no `Location`, and no status that forbids a body."""

    def get_wsgi_headers(self, environ: "WSGIEnvironment") -> Headers:
        """Return the headers. Werkzeug would copy and search them for what it has to correct."""
        return self.headers

    def get_app_iter(self, environ: "WSGIEnvironment") -> Iterable[bytes]:
        """Return the parts of the body."""
        if type(self.response) is list and environ["REQUEST_METHOD"] != "HEAD":
            return self.response
        return super().get_app_iter(environ)


def common(request_id: str, auth_token: str | None, now: float) -> dict[str, Any]:
    """Return the members that every reply has.

    :param now: the time in Unix seconds
    """
    members = {
        "request_id": request_id,
        "node": NODE,
        "timestamp": _timestamp(int(now)),
        "version": VERSION,
    }
    return {**members, "auth_token": auth_token} if auth_token else members


@lru_cache(maxsize=2)
def _timestamp(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _common(state: Any) -> dict[str, Any]:
    """Return the members that every reply has.

    :param state: Flask's `g`
    """
    members = common(state.request_id, state.get("auth_token"), state.clock())
    return {**members, "dry_run": True} if state.get("dry_run") else members


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None}
