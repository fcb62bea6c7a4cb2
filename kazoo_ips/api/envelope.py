"""Crossbar's envelope, in and out: the only module that knows its members.

Requests are read as leniently as Crossbar reads them (`api_util.erl`): any or no content type
that curl or a browser puts on JSON will do, and no body at all where no data is needed.
"""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from itertools import chain, islice
from secrets import token_hex
from typing import Any, NoReturn

import orjson
from flask import Response, g, request
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from kazoo_ips.api.request_state import here
from kazoo_ips.errors import ValidationFailed
from kazoo_ips.observability import request_context

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_JSON_TYPES = re.compile(r"(application/(x-)?json|text/(x-)?json|.*\+json|)$")
_FORM = "application/x-www-form-urlencoded"

NODE = base64.urlsafe_b64encode(
    hashlib.md5(socket.gethostname().encode(), usedforsecurity=False).digest()
).decode()[:22]
VERSION = version("kazoo_ips")


@dataclass(frozen=True)
class Envelope:
    """What came in: `data` and the members beside it, or what is wrong with it."""

    members: Mapping[str, Any] = field(default_factory=dict)
    problem: Exception | None = None

    @property
    def has_data(self) -> bool:
        """Whether there is any `data`; null is none."""
        return self.members.get("data") is not None

    def text(self, name: str) -> str | None:
        """A parameter, wherever Crossbar looks for it: data, query, envelope, in that order."""
        data = self.members.get("data")
        inside = data.get(name) if isinstance(data, dict) else None
        value = inside or request.args.get(name) or self.members.get(name)
        return value if isinstance(value, str) else None

    def all(self, name: str) -> list[Any]:
        """All values of a parameter, from wherever Crossbar looks for it."""
        data = self.members.get("data")
        inside = [data[name]] if isinstance(data, dict) and name in data else []
        beside = [self.members[name]] if name in self.members else []
        return [*inside, *request.args.getlist(name), *beside]

    def data(self, *, required: bool = True) -> dict[str, Any]:
        """The `data` object.

        :param required: whether a request without a body is an error
        :raises ValidationFailed: it is missing or not an object
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
        """Raise what was wrong with the body, if anything was."""
        if self.problem:
            raise self.problem


def fail(path: str, rule: str, message: str, **more: Any) -> NoReturn:
    """Refuse a request for one broken rule, in Crossbar's words."""
    raise ValidationFailed({path: {rule: {"message": message, **more}}})


def read() -> Envelope:
    """The request's envelope. What is wrong with it is kept, to be raised in its turn."""
    try:
        body = _body()
    except HTTPException as error:
        return Envelope(problem=error)
    if not body:
        return Envelope()
    if not (_JSON_TYPES.match(request.mimetype) or request.mimetype == _FORM):
        return Envelope(problem=UnsupportedMediaType())
    try:
        members = json.loads(body.decode(), parse_constant=_no_constant)
        # Refuses halves of surrogate pairs, and 1e999, which is no number here.
        json.dumps(members, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        return Envelope(problem=_bad_json(str(error)[:200]))
    if not isinstance(members, dict):
        return Envelope(problem=_bad_json("All JSON must be valid"))
    return Envelope({k.lower(): v for k, v in members.items()})


def _body() -> bytes:
    if not {"CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"} & request.environ.keys():
        return b""
    try:
        body = request.get_data()
    except RequestEntityTooLarge:
        raise
    except Exception as error:  # a bad chunk, or it breaks off: each server has its own word
        late = isinstance(error.__context__ or error, TimeoutError)
        raise (RequestTimeout if late else BadRequest) from error
    # Where no length was announced, what is too long comes cut off.
    if request.content_length is None and len(body) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge
    return body


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _bad_json(message: str) -> ValidationFailed:
    return ValidationFailed({"json": {"invalid": {"message": message, "target": "body"}}})


def name_request(clock: Callable[[], float]) -> None:
    """Give the request the name that it goes by everywhere: the caller's, if that is one."""
    asked, known = here()
    offered = asked.environ.get("HTTP_X_REQUEST_ID")
    name = offered if offered and _REQUEST_ID.fullmatch(offered) else token_hex(16)
    known.request_id, known.clock = name, clock
    request_context.rename(name)


def say_name(response: Response) -> None:
    """Have a reply carry the name of its request."""
    response.headers["X-Request-ID"] = g.request_id


def success(
    data: Any, *, status: int = 200, revision: str | None = None, **members: Any
) -> Response:
    """The reply to a request that went well.

    :param status: of what was done; a dry run's is 200
    :param revision: of the one document that `data` shows; a list's is a digest of it
    :param members: further members of the envelope; those that are None are left out
    """
    text = dump(data)
    revision = revision or digest(text)
    headers = {"ETag": f'"{revision}"'}
    asked = here()[0]
    known = "HTTP_IF_NONE_MATCH" in asked.environ and asked.if_none_match.contains_weak(revision)
    if known and asked.method == "GET":
        return Response(status=304, headers=headers)
    rest = {"status": "success", "revision": revision, **_present(members), **_common()}
    status = 200 if here()[1].get("dry_run") else status
    return _json(b'{"data":%b,%b' % (text, dump(rest)[1:]), status, headers)


def stream(items: Iterable[Any]) -> Response:
    """The reply with a list of any length: its parts go out as they are read.

    The revision closes the body, since only then it is known; so there is no ETag.
    """
    common = _common()

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

    return _json(started(parts()), 200)


def started(parts: Iterator[bytes]) -> Iterator[bytes]:
    """The same parts, the first two read already: what goes wrong there still gets its reply."""
    return chain(list(islice(parts, 2)), parts)


def failure(code: int, message: str, data: Mapping[str, Any]) -> Response:
    """The reply to a request that did not go well: `error` is the code as a string."""
    body = {
        "data": data,
        "status": "error",
        "error": str(code),
        "message": message,
        **_common(),
    }
    return _json(dump(body), code)


def repeat(body: Mapping[str, Any], status: int) -> Response:
    """A reply that was given before, with the token of whoever asks now."""
    token = g.get("auth_token")
    return _json(dump({**body, **({"auth_token": token} if token else {})}), status)


def dump(value: Any) -> bytes:
    """JSON in UTF-8, without spaces."""
    try:
        return orjson.dumps(value)
    except TypeError:  # what somebody sent goes back to him: huge numbers, a thousand levels
        return json.dumps(value, separators=(",", ":")).encode()


def digest(text: bytes) -> str:
    """The revision of what has no document of its own."""
    return hashlib.sha256(text).hexdigest()[:32]


def _json(
    body: bytes | Iterator[bytes], status: int, headers: Mapping[str, str] | None = None
) -> Response:
    return Response(body, status, {"Content-Type": "application/json", **(headers or {})})


def common(request_id: str, auth_token: str | None, now: float) -> dict[str, Any]:
    """The members that every reply has.

    :param now: Unix seconds
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


def _common() -> dict[str, Any]:
    known = here()[1]
    members = common(known.request_id, known.get("auth_token"), known.clock())
    return {**members, "dry_run": True} if known.get("dry_run") else members


def _present(members: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in members.items() if v is not None}
