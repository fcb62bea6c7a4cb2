"""What gunicorn's parser of requests leaves out, and that nothing else changes."""

import io
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import wsgi

from kazoo_ips.server import http_requests
from kazoo_ips.server.http_requests import Requests

CLIENT = ("127.0.0.1", 1234)


@pytest.fixture
def constants(monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """gunicorn's settings, whose constants are kept during the test."""
    monkeypatch.setattr(wsgi, "base_environ", wsgi.base_environ)
    monkeypatch.setattr(util, "http_date", util.http_date)
    cfg = Config()
    cfg.set("threads", 7)
    http_requests.keep_constants(cfg)
    return cfg


def requests(*parts: bytes, trusted: str = "") -> Requests:
    cfg = Config()
    cfg.set("forwarded_allow_ips", trusted)
    return Requests(cfg, iter(parts), CLIENT)


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
