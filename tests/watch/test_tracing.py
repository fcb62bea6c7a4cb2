"""Spans of OpenTelemetry: their content, and that they cost nothing if they are not wanted."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest
import urllib3

from kazoo_ips.app import Instance
from kazoo_ips.model import CreateIP, DedicatedIP
from kazoo_ips.observability import tracing
from tests.conftest import Member
from tests.faults import proxy as faults
from tests.faults.proxy import FaultProxy
from tests.servers import Gunicorn, free_port
from tests.timing import LONG, eventually
from tests.watch.collector import Collector, Span

PARENT = "00f067aa0ba902b7"
COMMAND = Path(sys.executable).with_name("kazoo-ips")
VARIABLES = [name for name in os.environ if name.startswith("OTEL_")]


@dataclass
class Traced:
    """A gunicorn that makes spans, the proxy behind it, and the receiver of its spans."""

    url: str
    log: Path
    proxy: FaultProxy
    collector: Collector

    def send(self, method: str, path: str, member: Member, **headers: str) -> tuple[str, int]:
        """Send a request; return its id and the status of the reply."""
        request_id = uuid4().hex
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        reply = urllib3.request(
            method,
            self.url + path,
            headers={**member.headers, "X-Request-ID": request_id, **names},
            retries=False,
        )
        return request_id, reply.status

    def line(self, request_id: str) -> dict[str, Any]:
        """Return the log line of a request whose span has arrived."""
        found: list[dict[str, Any]] = []

        def has_arrived() -> bool:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            found[:] = [
                line for line in lines if line.get("request_id") == request_id and "status" in line
            ]
            return bool(found)

        assert eventually(has_arrived)
        return found[0]


def asking(environment: dict[str, str], endpoint: str, **more: str) -> dict[str, str]:
    """Return the environment of a process that makes spans and exports them at once."""
    own = {name: value for name, value in environment.items() if name not in VARIABLES}
    return {
        **own,
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        **more,
    }


@pytest.fixture(scope="module")
def traced(
    environment: dict[str, str],
    couchdb_url: str,
    operator: Member,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Traced]:
    log = tmp_path_factory.mktemp("tracing") / "log"
    with Collector() as collector, FaultProxy(couchdb_url) as proxy:
        own = asking(environment, collector.url, COUCHDB_URL=proxy.url)
        with Gunicorn(own, log, workers=1) as gunicorn:
            yield Traced(gunicorn.url, log, proxy, collector)


def trace_of_a_client(sampled: bool) -> tuple[str, str]:
    """Return a new trace id, and the header that names it."""
    trace_id = uuid4().hex
    return trace_id, f"00-{trace_id}-{PARENT}-0{int(sampled)}"


# Requests.


def test_a_request_is_a_span_of_the_clients_trace_with_those_of_couchdb_below(
    traced: Traced, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    trace_id, traceparent = trace_of_a_client(sampled=True)
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    request_id, status = traced.send(
        "POST", f"{path}?dry_run=false", alice, traceparent=traceparent, tracestate="a=1,b=2"
    )
    assert status == 200
    own, calls = traced.collector.of_work(request_id)
    assert (own.trace_id, own.parent_id, own.trace_state) == (trace_id, PARENT, "a=1,b=2")
    assert own.kind == "SERVER"
    assert own.name == "POST /v2/accounts/{account_id}/ips/{address}"
    assert own.attributes == {
        "http.request.method": "POST",
        "http.route": "/v2/accounts/{account_id}/ips/{address}",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": path,
        "client.address": "127.0.0.1",
        "kazoo_ips.request_id": request_id,
        "kazoo_ips.account_id": alice.id,
        "kazoo_ips.user_id": alice.user.id,
    }
    assert not own.failed
    assert own.resource["service.name"] == "kazoo_ips"
    assert own.resource["service.version"]
    line = traced.line(request_id)
    assert (line["trace_id"], line["parent_id"]) == (trace_id, PARENT)
    assert line["span_id"] == own.span_id
    assert len(calls) == line["couchdb_calls"] > 2
    assert len(traced.collector.trace(trace_id)) == len(calls) + 1
    assert all(own.begin <= call.begin <= call.end <= own.end for call in calls)


def test_a_span_of_a_request_to_couchdb_says_what_was_asked(
    traced: Traced, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    request_id, _ = traced.send("POST", f"/v2/accounts/{alice.id}/ips/192.0.2.1", alice)
    own, calls = traced.collector.of_work(request_id)
    assert {call.kind for call in calls} == {"CLIENT"}
    [write] = [
        call
        for call in calls
        if call.attributes["kazoo_ips.couchdb.kind"] == "write"
        and call.attributes["db.namespace"].endswith("dedicated_ips")
    ]
    assert write.name == "PUT /{db}/{docid}"
    couchdb_id = write.attributes["kazoo_ips.couchdb.request_id"]
    header = f"x-couch-request-id: {couchdb_id}\r\n".encode()
    assert [r for r in traced.proxy.records if header in r.request.head.lower()]
    proxy = urlsplit(traced.proxy.url)
    database = write.attributes["db.namespace"]
    assert database.endswith("-dedicated_ips")
    assert write.attributes == {
        "db.system.name": "couchdb",
        "db.namespace": database,
        "db.operation.name": "PUT /{db}/{docid}",
        "db.response.status_code": "201",
        "server.address": proxy.hostname,
        "server.port": proxy.port,
        "kazoo_ips.couchdb.kind": "write",
        "kazoo_ips.couchdb.outcome": "ok",
        "kazoo_ips.couchdb.request_id": couchdb_id,
    }
    assert own.trace_id.startswith(couchdb_id.partition("-")[0])


def test_a_request_without_a_trace_begins_one(traced: Traced, alice: Member) -> None:
    request_id, _ = traced.send("GET", f"/v2/accounts/{alice.id}/ips", alice)
    own, calls = traced.collector.of_work(request_id)
    assert own.parent_id == ""
    assert {call.trace_id for call in calls} == {own.trace_id}
    line = traced.line(request_id)
    assert (line["trace_id"], line["span_id"]) == (own.trace_id, own.span_id)
    assert "parent_id" not in line


@pytest.mark.parametrize(
    ("traceparent", "tracestate"),
    [
        ("00-no-trace-01", "a=1"),
        (f"00-{'0' * 32}-{PARENT}-01", ""),
        (f"ff-{'1' * 32}-{PARENT}-01", ""),
    ],
)
def test_an_invalid_header_begins_a_trace(
    traced: Traced, alice: Member, traceparent: str, tracestate: str
) -> None:
    request_id, status = traced.send(
        "GET", "/v2/ips", alice, traceparent=traceparent, tracestate=tracestate
    )
    own, _ = traced.collector.of_work(request_id)
    assert (status, own.parent_id, own.trace_state) == (403, "", "")


@pytest.mark.parametrize("tracestate", ["", "=", "a" * 2000, "ä=1", "a=1,a=2", ",,,"])
def test_no_tracestate_fails_a_request(traced: Traced, alice: Member, tracestate: str) -> None:
    trace_id, traceparent = trace_of_a_client(sampled=True)
    request_id, status = traced.send(
        "GET",
        f"/v2/accounts/{alice.id}/ips",
        alice,
        traceparent=traceparent,
        tracestate=tracestate.encode().decode("latin-1"),
    )
    assert status == 200
    assert traced.collector.of_work(request_id)[0].trace_id == trace_id


def test_what_the_client_does_not_sample_is_not_exported(traced: Traced, alice: Member) -> None:
    unsampled, header = trace_of_a_client(sampled=False)
    path = f"/v2/accounts/{alice.id}/ips"
    quiet, _ = traced.send("GET", path, alice, traceparent=header)
    loud, _ = traced.send("GET", path, alice)
    traced.collector.of_work(loud)  # spans are exported in their order
    assert traced.collector.trace(unsampled) == []
    line = traced.line(quiet)
    assert line["trace_id"] == unsampled
    assert "span_id" not in line


def test_an_error_of_the_service_is_marked_and_one_of_the_client_is_not(
    traced: Traced, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    path = f"/v2/accounts/{alice.id}/ips/192.0.2.1"
    traced.proxy.rule(faults.bad_gateway, "GET", "-dedicated_ips/192", times=None)
    fails, status = traced.send("GET", path, alice)
    traced.proxy.clear()
    assert status == 503
    own, calls = traced.collector.of_work(fails)
    assert own.failed
    assert own.attributes["error.type"] == "503"
    assert own.attributes["kazoo_ips.notes"]
    failed = [call for call in calls if call.failed]
    assert failed
    assert {call.attributes["error.type"] for call in failed} == {"502"}
    missing, status = traced.send("GET", f"/v2/accounts/{alice.id}/ips/192.0.2.99", alice)
    assert status == 404
    own, calls = traced.collector.of_work(missing)
    assert not own.failed
    assert "error.type" not in own.attributes
    assert [call for call in calls if call.attributes["kazoo_ips.couchdb.outcome"] == "missing"]
    assert not [call for call in calls if call.failed]


def test_a_request_to_couchdb_without_a_response_is_marked(
    traced: Traced, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    add("192.0.2.1")
    traced.proxy.rule(faults.cut, "PUT", "-dedicated_ips/192")
    request_id, _ = traced.send("POST", f"/v2/accounts/{alice.id}/ips/192.0.2.1", alice)
    traced.proxy.clear()
    _, calls = traced.collector.of_work(request_id)
    [cut] = [call for call in calls if call.failed]
    assert cut.attributes["error.type"] == "no_answer"
    assert "db.response.status_code" not in cut.attributes


def test_a_request_without_a_route_is_named_by_its_method(traced: Traced, alice: Member) -> None:
    request_id, _ = traced.send("GET", "/v2/nowhere", alice)
    own, _ = traced.collector.of_work(request_id)
    assert own.name == "GET"
    assert "http.route" not in own.attributes
    request_id, _ = traced.send("BREW", "/v2/ips", alice)
    own, _ = traced.collector.of_work(request_id)
    assert own.name == "HTTP"
    assert own.attributes["http.request.method"] == "_OTHER"
    assert own.attributes["http.request.method_original"] == "BREW"


def test_requests_to_couchdb_of_threads_that_help_belong_to_the_request(
    traced: Traced, services: Instance, pool: object, alice: Member
) -> None:
    """For 200 addresses or more, other threads read the copies and one half of the documents."""
    addresses = [f"198.51.{n // 200}.{n % 200}" for n in range(400)]
    services.bulk_additions.create_all(
        [CreateIP(address, "us-east", "proxy1.example.com") for address in addresses], "setup"
    )
    data = {"data": {"ips": addresses}}
    path = f"/v2/accounts/{alice.id}/ips"
    reply = urllib3.request("POST", traced.url + path, json=data, headers=alice.headers)
    assert reply.status == 200, reply.data
    request_id, status = traced.send("DELETE", path, alice)
    assert status == 200
    own, calls = traced.collector.of_work(request_id)
    assert len(calls) == traced.line(request_id)["couchdb_calls"] > 3
    assert {call.trace_id for call in calls} == {own.trace_id}
    together = [(a, b) for a in calls for b in calls if a.begin < b.begin < a.end and a is not b]
    assert together, "no other thread has sent a request"
    heads = [record.request.head.lower() for record in traced.proxy.records]
    assert not [head for head in heads if b"x-couch-request-id: command-" in head], (
        "a span that belongs to no work"
    )


def test_a_shared_request_to_couchdb_is_linked_from_the_requests_that_waited_for_it(
    traced: Traced, add: Callable[..., DedicatedIP], alice: Member
) -> None:
    for n in range(8):
        add(f"192.0.2.{n}")
    traced.proxy.rule(faults.delay(before=0.01), path="-dedicated_ips/", times=None)

    def read(n: int) -> str:
        return traced.send("GET", f"/v2/accounts/{alice.id}/ips/192.0.2.{n}", alice)[0]

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(read, range(8)))
    traced.proxy.clear()
    spans = [traced.collector.of_work(request_id) for request_id in ids]
    senders = {own.span_id: calls for own, calls in spans}
    waits = [call for _, calls in spans for call in calls if call.name == "shared request"]
    assert waits
    for wait in waits:
        [sender] = wait.links
        sent = [call.attributes["kazoo_ips.couchdb.request_id"] for call in senders[sender]]
        assert any(
            each.startswith(wait.attributes["kazoo_ips.couchdb.request_id"]) for each in sent
        )


def test_no_secret_is_in_any_span(traced: Traced, services: Instance, alice: Member) -> None:
    api_key = services.accounts.fetch(alice.id).api_key
    token = alice.token
    paths = [
        f"/v2/accounts/{alice.id}/ips?auth_token={token}&api_key={api_key}",
        f"/v2/{token}",
        f"/v2/accounts/{quote(token)}/ips",
    ]
    last = [traced.send("GET", path, alice, user_agent=token)[0] for path in paths][-1]
    traced.collector.of_work(last)
    received = b"".join(traced.collector.bodies)
    for secret in (token, token.split(".")[2], api_key or ""):
        assert secret.encode() not in received


# Other work.


def test_a_background_round_that_asks_couchdb_is_a_trace(traced: Traced) -> None:
    def rounds() -> list[Span]:
        return [span for span in list(traced.collector.spans) if span.name == "background round"]

    assert eventually(lambda: bool(rounds()))
    first = rounds()[0]
    assert (first.parent_id, first.kind) == ("", "INTERNAL")
    _, calls = traced.collector.of_work(first.attributes["kazoo_ips.request_id"])
    assert calls
    traces = {span.trace_id for span in traced.collector.spans if span.parent_id}
    assert {each.trace_id for each in rounds()} <= traces, "idle rounds are not exported"


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_command_is_a_trace(
    environment: dict[str, str], add: Callable[..., DedicatedIP]
) -> None:
    add("192.0.2.1")
    with Collector() as collector:
        own = asking(environment, collector.url, OTEL_SERVICE_NAME="ours")
        result = run(own, "summary")
        assert (result.returncode, result.stderr) == (0, "")
        [span] = [span for span in collector.spans if not span.parent_id]
        assert (span.name, span.kind, span.failed) == ("kazoo-ips summary", "INTERNAL", False)
        assert span.attributes["kazoo_ips.command"] == "kazoo-ips summary"
        assert span.attributes["kazoo_ips.request_id"].startswith("command-")
        assert span.resource["service.name"] == "ours"
        assert [each for each in collector.spans if each.parent_id == span.span_id]
        collector.spans.clear()
        assert run(own, "release", "192.0.2.99").returncode == 1
        [span] = [span for span in collector.spans if not span.parent_id]
        assert (span.name, span.failed) == ("kazoo-ips release", True)
        collector.spans.clear()
        assert run(own, "--help").returncode == 0
        assert collector.spans == []


# Workers and collectors.


def test_each_worker_exports_also_its_last_spans(
    environment: dict[str, str], alice: Member, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with Collector() as collector, FaultProxy(environment["COUCHDB_URL"]) as proxy:
        own = asking(environment, collector.url, OTEL_BSP_SCHEDULE_DELAY="3600000")
        with Gunicorn(own, log, workers=2) as gunicorn:
            traced = Traced(gunicorn.url, log, proxy, collector)
            before = gunicorn.workers()
            path = f"/v2/accounts/{alice.id}/ips"
            ids = [traced.send("GET", path, alice, connection="close")[0] for _ in range(10)]
            assert not collector.spans
            gunicorn.reload()
            for request_id in ids:
                collector.of_work(request_id)
            assert eventually(lambda: not set(before) & set(gunicorn.workers()))
            last, _ = traced.send("GET", path, alice)
            gunicorn.stop()
        collector.of_work(last)


def answers_quickly(url: str, member: Member) -> None:
    """Send many more requests than the queue of spans has places."""
    pool = urllib3.HTTPConnectionPool(urlsplit(url).netloc, maxsize=8)
    start = time.monotonic()

    def read(_: int) -> int:
        path = f"/v2/accounts/{member.id}/ips"
        return pool.request("GET", path, headers=member.headers, retries=False).status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(read, range(100))) == {200}
    assert time.monotonic() - start < LONG, "a request has waited for the collector"


@pytest.mark.parametrize("silent", [False, True], ids=["nobody listens", "it never answers"])
def test_an_unreachable_collector_delays_no_request_and_no_end_of_a_process(
    environment: dict[str, str], alice: Member, tmp_path: Path, silent: bool
) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1] if silent else free_port()
        own = asking(
            environment,
            f"http://127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="120",
            OTEL_BSP_MAX_QUEUE_SIZE="8",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="8",
        )
        with Gunicorn(own, log, workers=1) as gunicorn:
            answers_quickly(gunicorn.url, alice)
            ending = time.monotonic()
        assert time.monotonic() - ending < LONG
        began = time.monotonic()
        result = run(own, "summary")
        assert result.returncode == 0
        assert time.monotonic() - began < LONG
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["status"] for line in lines if "status" in line} == {200}
    assert not [line for line in lines if "HTTPConnection" in line.get("message", "")]
    assert [line for line in lines if "last spans" in line.get("message", "")]
    assert (
        result.stderr == "the last spans were not exported: the collector does not accept them\n"
    )


# A service without spans.

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


@pytest.fixture
def absent(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The environment of processes that cannot import OpenTelemetry."""
    folder = tmp_path / "absent"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BLOCK)
    return {**environment, "PYTHONPATH": str(folder)}


def test_the_service_works_where_opentelemetry_is_not_installed(
    absent: dict[str, str], alice: Member, tmp_path: Path
) -> None:
    own, log = asking(absent, "http://127.0.0.1:1"), tmp_path / "log"
    found = subprocess.run(
        [sys.executable, "-c", "import opentelemetry.sdk"],
        env=own,
        capture_output=True,
        check=False,
    )
    assert b"ModuleNotFoundError" in found.stderr
    with Gunicorn(own, log, workers=1) as gunicorn:
        path = f"/v2/accounts/{alice.id}/ips"
        reply = urllib3.request("GET", gunicorn.url + path, headers=alice.headers)
        assert reply.status == 200
    assert log.read_text().count("install kazoo_ips[otel]") == 1
    result = run(own, "summary")
    assert result.returncode == 0
    assert "install kazoo_ips[otel]" in result.stderr


@pytest.mark.parametrize(
    "more",
    [{"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}],
    ids=lambda more: next(iter(more)),
)
def test_variables_that_cannot_be_used_do_not_stop_a_command(
    environment: dict[str, str], operator: Member, more: dict[str, str]
) -> None:
    result = run(asking(environment, "http://127.0.0.1:1", **more), "summary")
    assert result.returncode == 0
    assert "no spans are made" in result.stderr


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}


@pytest.mark.parametrize(
    ("variables", "complains"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "console"}, True),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, True),
    ],
)
def test_no_spans_are_made_unless_they_are_asked_for(
    variables: dict[str, str],
    complains: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracing.start()
    assert tracing.tracer is None
    assert [record.name for record in caplog.records] == [tracing.__name__] * complains


COUNT = """
import json, os, sys
from webtest import TestApp
from kazoo_ips.app import create_app
from kazoo_ips.observability import tracing

tracing.start()
api, path, headers = TestApp(create_app()), os.environ["CALLED"], json.loads(os.environ["HEADERS"])
counts, files = [], set()
for _ in range(20):
    count = 0
    def profile(frame, event, argument):
        global count
        if event in ("call", "c_call"):
            count += 1
            files.add(frame.f_code.co_filename)
    sys.setprofile(profile)
    api.get(path, headers=headers)
    sys.setprofile(None)
    counts.append(count)
loaded = sorted(name for name in sys.modules if name.startswith("opentelemetry"))
print(json.dumps({
    "calls": min(counts),
    "loaded": loaded[:3],
    "entered": [name for name in files if "opentelemetry" in name or "tracing.py" in name],
}))
"""


def test_a_request_costs_the_same_without_spans_as_without_opentelemetry(
    environment: dict[str, str],
    absent: dict[str, str],
    add: Callable[..., DedicatedIP],
    alice: Member,
) -> None:
    """The test compares the numbers of calls in Python and C. None is a call of OpenTelemetry."""
    add("192.0.2.1")

    def counted(base: dict[str, str], **more: str) -> dict[str, Any]:
        own = {name: value for name, value in base.items() if name not in VARIABLES}
        result = subprocess.run(
            [sys.executable, "-c", COUNT],
            env={
                **own,
                "CALLED": f"/v2/accounts/{alice.id}/ips/192.0.2.1",
                "HEADERS": json.dumps(alice.headers),
                **more,
            },
            stdout=subprocess.PIPE, text=True, timeout=60, check=True,
        )  # fmt: skip
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    without = counted(absent)
    assert without["loaded"] == without["entered"] == []
    assert counted(environment) == without
    assert counted(environment, **ENDPOINT, OTEL_SDK_DISABLED="true") == without
    spans = counted(environment, **ENDPOINT)
    assert spans["calls"] > without["calls"]
    assert spans["loaded"]
    assert spans["entered"]
