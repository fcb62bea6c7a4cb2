"""Random requests: no 500, no reply outside the envelope, no lost address."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips.api.openapi import operation_of, rules_of
from kazoo_ips.config import Settings
from kazoo_ips.couch.client import Database
from tests import strategies
from tests.openapi_check import CheckedApp
from tests.strategies import runs

METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "LINK"]
KNOWN = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
ENVELOPE = {"data", "status", "request_id", "node", "timestamp", "version"}


@dataclass(frozen=True)
class Fuzzed:
    """A request, as text and bytes."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


# The parts of requests

header_text = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30
).map(str.strip)
segments = st.one_of(
    st.sampled_from(KNOWN),
    strategies.addresses(),
    strategies.near_addresses(),
    st.text(max_size=10),
    st.sampled_from(["zones", "hosts", "assigned", "..", ".", "_design", "_all_docs", "\x00"]),
)
quoted = st.one_of(
    segments.map(lambda text: quote(text, safe="")),
    segments.map(lambda text: quote(text, safe=":")),
    st.binary(max_size=6).map(quote_from_bytes),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=10), segments
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
near_data = st.fixed_dictionaries(
    {},
    optional={
        "ips": st.lists(segments | values, max_size=5) | values,
        "ip": segments | values,
        "zone": st.text(min_size=1, max_size=5) | values,
        "host": st.text(min_size=1, max_size=5) | values,
        "quantity": st.integers(-1, 5) | values,
        "force": st.just("true") | values,
        "credentials": st.text(max_size=70) | values,
        "account_name": values,
        "realm": values,
        "method": st.sampled_from(["md5", "sha"]) | values,
        "api_key": st.text(max_size=70) | values,
    },
)
near_envelopes = st.fixed_dictionaries(
    {},
    optional={
        "data": near_data | near_data | values,
        "verb": st.sampled_from(METHODS) | values,
        "auth_token": values,
        "Data": values,
    },
)
bodies = st.one_of(
    st.just(b""),
    (near_envelopes | values).map(lambda value: json.dumps(value).encode()),
    near_envelopes.map(lambda value: json.dumps(value, ensure_ascii=True).encode()[:-1]),
    near_envelopes.map(lambda value: json.dumps(value).encode("utf-16")),
    st.binary(max_size=40),
    st.sampled_from(
        [b"[" * 5000, b"{}", b"null", b'{"data":{"ips":[1e999]}}', b'{"data":"\\ud800"}', b"\xff"]
    ),
)
queries = st.one_of(
    st.just(""),
    st.dictionaries(
        st.sampled_from(
            [
                "zone",
                "host",
                "quantity",
                "page_size",
                "start_key",
                "paginate",
                "force",
                "verb",
                "x",
            ]
        ),
        st.one_of(
            st.sampled_from(
                ["1", "0", "-1", "true", "false", "us-east", "9" * 30, "W10=", "\u0661"]
            ),
            st.text(max_size=8),
            near_data.map(json.dumps),
        ),
        max_size=4,
    ).map(urlencode),
    st.binary(max_size=12).map(lambda raw: quote_from_bytes(raw, safe="&=%+")),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        "Accept": st.sampled_from(["text/csv", "*/*", "text/html", "application/json;q=0"])
        | header_text,
        "Content-Type": st.sampled_from(
            [
                "application/json",
                "application/json; charset=utf-16",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "text/csv",
            ]
        )
        | header_text,
        "If-Match": st.just("*") | header_text,
        "If-None-Match": st.just("*") | header_text,
        "X-Request-ID": header_text,
        "X-HTTP-Method-Override": st.sampled_from(METHODS),
        "Idempotency-Key": header_text,
        "Accept-Encoding": header_text,
        "Range": st.just("bytes=0-1"),
        "X-Forwarded-For": header_text,
    },
)
credentials = st.one_of(
    st.just({}),
    header_text.map(lambda text: {"X-Auth-Token": text}),
    header_text.map(lambda text: {"Authorization": text}),
    st.tuples(st.sampled_from(["Bearer", "Basic", "basic"]), header_text | st.just("YTpi")).map(
        lambda pair: {"Authorization": " ".join(pair)}
    ),
)


@dataclass
class Service:
    """The application, its callers, and the pool."""

    app: TestApp
    pool: Database
    ids: list[str]
    tokens: list[str]

    def count(self) -> int:
        """Return the number of documents in the pool."""
        return int(self.pool.info()["doc_count"])

    def send(self, fuzzed: Fuzzed) -> Any:
        """Send a request; check that the reply is valid and no address was lost."""
        before = self.count()
        reply = self.app.request(
            f"{fuzzed.path}?{fuzzed.query}",
            method=fuzzed.method,
            headers={name: text for name, text in fuzzed.headers.items() if text},
            body=fuzzed.body,
            expect_errors=True,
        )
        event(f"{reply.status_int}")
        assert reply.status_int < 500, reply
        assert_in_form(fuzzed, reply)
        assert self.count() - before == growth(fuzzed, reply)
        return reply


def assert_in_form(fuzzed: Fuzzed, reply: Any) -> None:
    """Check that a reply is an envelope, or, if the request allows it, CSV or a page."""
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", reply.headers["X-Request-ID"])
    if reply.status_int == 304:
        assert reply.body == b""
        return
    if reply.headers["Content-Type"] == "text/csv":
        assert reply.status_int == 200
        assert next(csv.reader(io.StringIO(reply.text)))[0] in ("ip", "zone", "host")
        return
    if reply.headers["Content-Type"].startswith("text/html"):
        assert reply.status_int == 200
        assert fuzzed.path.strip("/") in {"", "v2"}
        return
    assert reply.headers["Content-Type"] == "application/json"
    if fuzzed.method == "HEAD":
        return
    body = json.loads(reply.body)
    assert body.keys() >= ENVELOPE
    assert body["request_id"] == reply.headers["X-Request-ID"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    if reply.status_int < 400:
        assert body["status"] == "success"
        assert body["revision"]
        assert "error" not in body
    else:
        assert body["status"] == "error"
        assert body["error"] == str(reply.status_int)
        assert isinstance(body["message"], str)
        assert isinstance(body["data"], dict)
    if reply.status_int == 405:
        assert reply.headers["Allow"]


def growth(fuzzed: Fuzzed, reply: Any) -> int:
    """Return how many addresses were added according to the reply."""
    if fuzzed.method == "HEAD" or reply.headers.get("Content-Type") != "application/json":
        return 0
    data = json.loads(reply.body)["data"]
    if not isinstance(data, dict) or "_read_only" not in data or reply.status_int >= 400:
        return 0
    return -1 if data["_read_only"].get("deleted") else 1


@pytest.fixture
def service(
    settings: Settings, add: Callable[..., Any], pool: Database, operator: Any, alice: Any
) -> Service:
    """A service with three addresses, one of them Alice's."""
    wsgi = composition.create_app(replace(settings, identity_cache=4.0, refusal_time=0.0))
    app = CheckedApp(wsgi, lint=False)
    for address in KNOWN:
        add(address)
    app.post(f"/v2/accounts/{alice.id}/ips/{KNOWN[1]}", headers=alice.headers)
    return Service(app, pool, [operator.id, alice.id], [operator.token, alice.token])


def routes(service: Service) -> list[str]:
    """The path of every route with an envelope, with its parameters in angle brackets."""
    app = service.app.app
    rules = rules_of(app)
    return sorted({rule.rule for rule in rules if operation_of(app, rule).replies is not None})


def path(data: st.DataObject, service: Service, rule: str) -> str:
    """A route's path with random values for its parameters."""
    account = data.draw(st.sampled_from(service.ids) | quoted, label="account")
    address = data.draw(quoted, label="address")
    filled = re.sub("<[a-z:]+>", lambda _: address, rule.replace("<account_id>", account))
    return filled + data.draw(st.sampled_from(["", "", "", "/", "//", "/x"]), label="tail")


@given(data=st.data())
@runs(100)
def test_any_request_to_any_path_has_a_valid_reply(service: Service, data: st.DataObject) -> None:
    rule = data.draw(st.sampled_from(routes(service)), label="route")
    anywhere = st.lists(quoted, max_size=5).map(lambda parts: "/" + "/".join(parts))
    valid = st.sampled_from(service.tokens).map(lambda token: {"X-Auth-Token": token})
    who = data.draw(valid | credentials, label="who")
    near = data.draw(st.integers(0, 9), label="near") > 0
    service.send(
        Fuzzed(
            data.draw(st.sampled_from(METHODS[:4]) | st.sampled_from(METHODS), label="method"),
            path(data, service, rule) if near else data.draw(anywhere, label="path"),
            data.draw(queries, label="query"),
            {**data.draw(headers, label="headers"), **who},
            data.draw(bodies, label="body"),
        )
    )


@given(data=st.data())
@runs(100)
def test_any_body_of_an_authorised_write_has_a_valid_reply(
    service: Service, data: st.DataObject
) -> None:
    operator, alice = service.ids
    writes = [
        ("PUT", "/v2/ips"),
        ("PUT", f"/v2/accounts/{alice}/ips"),
        ("POST", f"/v2/accounts/{alice}/ips"),
        ("DELETE", f"/v2/accounts/{alice}/ips"),
        ("POST", f"/v2/accounts/{alice}/ips/{KNOWN[0]}"),
        ("DELETE", f"/v2/accounts/{operator}/ips/{KNOWN[1]}"),
        ("PUT", "/v2/user_auth"),
        ("PUT", "/v2/api_auth"),
    ]
    method, where = data.draw(st.sampled_from(writes), label="write")
    content = data.draw(near_data | near_data | values, label="data")
    body = json.dumps({"data": content}).encode()
    service.send(Fuzzed(method, where, "", {"X-Auth-Token": service.tokens[0]}, body))


@given(data=st.data())
@runs(60)
def test_any_query_of_a_list_has_a_valid_reply(service: Service, data: st.DataObject) -> None:
    lists = [r for r in routes(service) if r.endswith(("/ips", "assigned", "zones", "hosts"))]
    rule = data.draw(st.sampled_from(lists), label="route")
    accept = data.draw(st.sampled_from(["*/*", "text/csv"]), label="accept")
    service.send(
        Fuzzed(
            "GET",
            rule.replace("<account_id>", service.ids[1]),
            data.draw(queries, label="query"),
            {"X-Auth-Token": service.tokens[0], "Accept": accept},
        )
    )
