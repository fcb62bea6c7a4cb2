"""What the service leaves out of gunicorn's HTTP, and that nothing else changes."""

import io
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from hypothesis import given
from hypothesis import strategies as st

from kazoo_ips.api import envelope, middleware
from kazoo_ips.server import http_requests
from kazoo_ips.server.http_requests import Requests
from tests.strategies import runs

CLIENT = ("127.0.0.1", 1234)
HEADERS = (
    b"Host: ips.example",
    b"X-Auth-Token: one",
    b"X-Auth-Token: two",
    b"X-Forwarded-Proto: https",
    b"Expect: 100-continue",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Cookie: " + b"c" * 5000,
    b"under_score: 1",
    b"bad header",
)


@pytest.fixture
def constants(monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """gunicorn's settings, whose constants are kept during the test."""
    monkeypatch.setattr(wsgi, "base_environ", wsgi.base_environ)
    monkeypatch.setattr(wsgi, "Response", wsgi.Response)
    monkeypatch.setattr(util, "http_date", util.http_date)
    cfg = Config()
    cfg.set("threads", 7)
    http_requests.keep_constants(cfg)
    return cfg


def requests(*parts: bytes, trusted: str = "", parser: Any = Requests) -> Any:
    cfg = Config()
    cfg.set("forwarded_allow_ips", trusted)
    return parser(cfg, iter(parts), CLIENT)


def shown(request: Request) -> tuple[object, ...]:
    """Return what a request consists of."""
    expected = request._expected_100_continue
    framing = request.version, request.should_close(), expected, request.scheme
    return request.method, request.path, request.headers, framing, request.body.read()


def all_of(parser: RequestParser) -> list[object]:
    """Return all requests of a connection, and the error that ends it."""
    found: list[object] = []
    try:
        found += (shown(request) for request in parser)
    except ParseException as error:
        found.append((type(error), str(error)))
    return found


@runs(200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"1.1", b"1.1", b"1.0"]),
            st.sampled_from([b"", b"abc"]),
            st.one_of(
                st.just([0, 1]),
                st.lists(st.integers(0, len(HEADERS) - 1), max_size=3, unique=True),
            ),
        ),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from(["", "127.0.0.1"]),
)
def test_requests_of_a_connection_are_those_that_gunicorn_reads(
    sent: list[tuple[bytes, bytes, list[int]]], trusted: str
) -> None:
    data = b""
    for number, (version, body, chosen) in enumerate(sent):
        lines = [HEADERS[n] for n in chosen]
        lines += [b"Content-Length: %d" % len(body)] if body else []
        head = b"\r\n".join([b"POST /%d HTTP/%b" % (number, version), *lines])
        data += head + b"\r\n\r\n" + body
    ours, theirs = (requests(data, trusted=trusted, parser=p) for p in (Requests, RequestParser))
    assert all_of(ours) == all_of(theirs)


def test_a_change_of_a_request_does_not_change_the_next_one() -> None:
    parser = requests(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 3)
    for _ in range(3):
        request = next(parser)
        assert request.headers == [("HOST", "a")]
        request.headers.append(("X-AUTH-TOKEN", "changed"))


def test_equal_headers_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = list[bytes]()
    original = Request.parse_headers

    def parse(self: Request, data: bytes, from_trailer: bool = False) -> Any:
        parsed.append(data)
        return original(self, data, from_trailer)

    monkeypatch.setattr(Request, "parse_headers", parse)
    one, two, long = (b"Host: " + word for word in (b"a", b"b", b"c" * 5000))
    order = [one, one, two, two, one, long, long, one]
    parser = requests(b"".join(b"GET / HTTP/1.1\r\n%b\r\n\r\n" % head for head in order))
    assert len(list(parser)) == len(order)
    assert parsed == [one, two, one, long, long]


@pytest.mark.parametrize(
    "headers",
    [
        [envelope.JSON, middleware.POLICY, *middleware.HEADERS],
        [envelope.JSON, ("Content-Length", "12"), ("ETag", '"1-abc"')],
        [("Content-Type", "text/csv; charset=utf-8"), ("Cache-Control", "max-age=60")],
        [("Connection", "upgrade"), ("Upgrade", "websocket"), ("Keep-Alive", "1")],
        [envelope.JSON, ("X-Injected", "a\r\nSet-Cookie: b")],
        [("Bad name", "a")],
        [("X-Number", 1)],
    ],
)
def test_a_reply_has_the_headers_that_gunicorn_gives_it(
    headers: list[tuple[str, Any]], constants: Config
) -> None:
    request = next(requests(b"GET / HTTP/1.1\r\n\r\n"))
    made = []
    for response in (wsgi.Response, wsgi.Response.__mro__[1]):
        reply = response(request, None, constants)
        error: tuple[object, ...] = ()
        try:
            reply.process_headers(headers)
        except Exception as raised:
            error = type(raised), str(raised)
        made.append((error, [] if error else vars(reply)))
    assert made[0] == made[1]


def test_a_body_that_was_not_read_is_skipped_before_the_next_request() -> None:
    parser = requests(
        b"POST /one HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /two HTTP/1.1\r\n\r\n"
        b"GET /three HTTP/1.1\r\n\r\n"
    )
    assert [next(parser).path for _ in range(3)] == ["/one", "/two", "/three"]


def test_chunks_that_were_not_read_are_skipped_before_the_next_request() -> None:
    head = b"POST /one HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = requests(head + b"3\r\nabc\r\n0\r\n\r\nGET /two HTTP/1.1\r\n\r\n")
    assert [next(parser).path for _ in range(2)] == ["/one", "/two"]


def test_the_connection_ends_after_a_body_that_is_malformed() -> None:
    head = b"POST /one HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser = requests(head + b"no number\r\nabc\r\n0\r\n\r\n")
    body = next(parser).body
    with pytest.raises(Exception, match="no number"):
        body.read()
    assert not parser.finish_body()


@pytest.mark.parametrize(("trusted", "scheme"), [("", "http"), ("127.0.0.1", "https")])
def test_the_scheme_of_a_proxy_counts_only_if_gunicorn_trusts_it(
    trusted: str, scheme: str
) -> None:
    parser = requests(b"GET / HTTP/1.1\r\nX-Forwarded-Proto: https\r\n\r\n", trusted=trusted)
    assert next(parser).scheme == scheme


def test_each_request_has_an_environment_of_its_own(constants: Config) -> None:
    first = wsgi.base_environ(constants)
    first["wsgi.input"] = io.BytesIO()
    assert "wsgi.input" not in wsgi.base_environ(constants)


def test_settings_and_date_are_those_of_gunicorn(constants: Config) -> None:
    assert constants.threads == 7
    before = int(time.time())
    date = util.http_date()
    assert date in {formatdate(s, usegmt=True) for s in range(before, int(time.time()) + 1)}
