"""The embedded server on free ports: its start and end, its errors, its protocol."""

import base64
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import embedded.server
from embedded import EmbeddedCouch, EmbeddedError
from tests.timing import eventually

pytestmark = pytest.mark.slow

ROOT = Path(embedded.server.HERE).parent
SERVER_JS = ROOT / "embedded" / "server.js"
MAP = """// zone, host -> 1
(function (doc) {
  if (doc.zone) emit([doc.zone, doc.host], 1);
});
"""


class Client:
    """Sends requests to one server, and returns the status and the JSON of each response."""

    def __init__(self, couch: EmbeddedCouch) -> None:
        self.couch = couch
        self.port = couch.port

    def __call__(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            given = {"Content-Type": "application/json", "Accept": "application/json", **headers}
            connection.request(method, path, None if body is None else json.dumps(body), given)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def couch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCouch]:
    with EmbeddedCouch(tmp_path_factory.mktemp("couch")) as running:
        yield running


@pytest.fixture
def call(couch: EmbeddedCouch) -> Iterator[Client]:
    """A client of a server with one empty database, /db."""
    client = Client(couch)
    assert client("PUT", "/db")[0] == 201
    yield client
    assert client("DELETE", "/db")[0] == 200


def has_ended(pid: int) -> bool:
    """Return whether a process has ended. It may still be a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def run_server(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [embedded.server.find_node(), str(SERVER_JS), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


# Start and end


def test_data_outlives_a_restart(tmp_path: Path) -> None:
    with EmbeddedCouch(tmp_path) as couch:
        call = Client(couch)
        call("PUT", "/account%2Fab%2Fcd%2Fef")
        call("PUT", "/account%2Fab%2Fcd%2Fef/192.0.2.1", {"zone": "us-east"})
    with EmbeddedCouch(tmp_path) as couch:
        call = Client(couch)
        assert call("GET", "/_all_dbs") == (200, ["account/ab/cd/ef"])
        assert call("GET", "/account%2Fab%2Fcd%2Fef/192.0.2.1")[1]["zone"] == "us-east"
        assert call("DELETE", "/account%2Fab%2Fcd%2Fef")[0] == 200
        assert call("PUT", "/account%2Fab%2Fcd%2Fef")[0] == 201
        assert call("GET", "/account%2Fab%2Fcd%2Fef/192.0.2.1")[0] == 404


def test_data_outlives_a_kill(tmp_path: Path) -> None:
    with EmbeddedCouch(tmp_path) as couch:
        Client(couch)("PUT", "/db")
        Client(couch)("PUT", "/db/192.0.2.1", {"zone": "us-east"})
        os.kill(couch.pid, signal.SIGKILL)
        assert eventually(lambda: couch.failure() is not None)
    with EmbeddedCouch(tmp_path) as couch:
        assert Client(couch)("GET", "/db/192.0.2.1")[1]["zone"] == "us-east"


def test_the_server_writes_only_into_its_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with EmbeddedCouch(tmp_path / "data") as couch:
        Client(couch)("PUT", "/db")
        Client(couch)("GET", "/_session")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [embedded.server.find_node(), SERVER_JS, tmp_path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True
        process.send_signal(number)
        assert process.wait(10) == 0


def test_the_server_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib, embedded\n"
        "couch = embedded.EmbeddedCouch(pathlib.Path(sys.argv[1]))\n"
        "couch.start()\n"
        "print(couch.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not has_ended(pid)
        parent.kill()
    assert eventually(lambda: has_ended(pid))


def test_stopping_twice_does_no_harm(tmp_path: Path) -> None:
    couch = EmbeddedCouch(tmp_path)
    couch.start()
    couch.stop()
    couch.stop()


# Errors


def test_a_port_in_use_is_one_line_and_status_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_server(tmp_path, port)
        assert (result.returncode, result.stderr) == (1, f"port {port} is in use\n")
        with pytest.raises(EmbeddedError, match=f"^port {port} is in use$"):
            EmbeddedCouch(tmp_path, port).start()


def test_a_file_in_place_of_the_folder_is_one_line_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    result = run_server(tmp_path / "data")
    assert result.returncode == 1
    assert result.stderr.startswith(f"the data folder {tmp_path / 'data'} cannot be used: ")
    assert result.stderr.count("\n") == 1
    with pytest.raises(EmbeddedError, match="cannot be used"):
        EmbeddedCouch(tmp_path / "data").start()


@pytest.mark.parametrize("database", ["pouch__all_dbs__", "db"])
def test_broken_data_is_one_line_and_status_1(tmp_path: Path, database: str) -> None:
    with EmbeddedCouch(tmp_path) as couch:
        Client(couch)("PUT", "/db")
        Client(couch)("PUT", "/db/192.0.2.1", {})
    (tmp_path / database / "CURRENT").write_text("nonsense")
    result = run_server(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"the data folder {tmp_path} cannot be used: ")
    assert result.stderr.count("\n") == 1


def test_a_folder_serves_one_server_at_a_time(tmp_path: Path) -> None:
    with EmbeddedCouch(tmp_path), pytest.raises(EmbeddedError, match="in use by another server"):
        EmbeddedCouch(tmp_path).start()


def test_without_node_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match=r"^no Node\.js found: install it"):
        EmbeddedCouch(tmp_path).start()


def test_without_its_packages_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded.server, "HERE", tmp_path)
    with pytest.raises(EmbeddedError, match="run `make install`"):
        EmbeddedCouch(tmp_path).start()


# The protocol, in the cases in which express-pouchdb differs from CouchDB


def test_a_database_name_keeps_its_slashes(call: Client) -> None:
    assert call("PUT", "/account%2Fab%2Fcd%2Fef") == (201, {"ok": True})
    assert call("GET", "/account%2Fab%2Fcd%2Fef")[1]["db_name"] == "account/ab/cd/ef"
    assert call("GET", "/account%2fab%2fcd%2fef")[0] == 200
    assert call("GET", "/_all_dbs") == (200, ["account/ab/cd/ef", "db"])
    within = "startkey=%22account%2F%22&endkey=%22account0%22"
    assert call("GET", f"/_all_dbs?{within}") == (200, ["account/ab/cd/ef"])
    assert call("GET", "/_all_dbs?skip=1&limit=1") == (200, ["db"])
    assert call("DELETE", "/account%2Fab%2Fcd%2Fef")[0] == 200


def test_the_states_of_several_databases_are_one_response(call: Client) -> None:
    assert call("PUT", "/account%2Fab%2Fcd%2Fef")[0] == 201
    assert call("PUT", "/db/a", {})[0] == 201
    asked = {"keys": ["db", "account/ab/cd/ef", "nowhere"]}
    status, infos = call("POST", "/_dbs_info", asked)
    assert status == 200
    assert [each["key"] for each in infos] == asked["keys"]
    assert [each.get("info", {}).get("doc_count") for each in infos] == [1, 0, None]
    assert infos[0]["info"]["update_seq"] > infos[1]["info"]["update_seq"]
    assert infos[2]["error"] == "not_found"
    assert "nowhere" not in call("GET", "/_all_dbs")[1]
    assert call("DELETE", "/account%2Fab%2Fcd%2Fef")[0] == 200


def test_a_database_is_created_and_deleted_once(call: Client) -> None:
    assert call("PUT", "/db")[0] == 412
    assert call("DELETE", "/nowhere")[0] == 404
    assert call("GET", "/nowhere/doc")[0] == 404
    assert call("PUT", "/Capital")[1]["error"] == "illegal_database_name"


def test_a_document_is_written_at_its_current_revision_only(call: Client) -> None:
    first = call("PUT", "/db/192.0.2.1", {"n": 1})[1]["rev"]
    assert call("PUT", "/db/192.0.2.1", {"n": 2})[0] == 409
    assert call("PUT", "/db/192.0.2.1", {"n": 2, "_rev": first})[0] == 201
    assert call("PUT", "/db/192.0.2.1", {"n": 3, "_rev": first})[0] == 409
    second = call("GET", "/db/192.0.2.1")[1]["_rev"]
    assert call("PUT", "/db/192.0.2.1", {"n": 3}, **{"If-Match": second})[0] == 201


def test_a_deletion_needs_the_revision(call: Client) -> None:
    first = call("PUT", "/db/192.0.2.1", {"n": 1})[1]["rev"]
    second = call("PUT", "/db/192.0.2.1", {"n": 2, "_rev": first})[1]["rev"]
    assert call("DELETE", "/db/192.0.2.1")[0] == 409
    assert call("DELETE", f"/db/192.0.2.1?rev={first}")[0] == 409
    assert call("DELETE", "/db/192.0.2.1", **{"If-Match": first})[0] == 409
    assert call("DELETE", f"/db/192.0.2.1?rev={second}")[0] == 200
    assert call("DELETE", f"/db/192.0.2.1?rev={second}")[0] == 404
    assert call("DELETE", f"/db/192.0.2.9?rev={second}")[0] == 404
    design = call("PUT", "/db/_design/ips", {})[1]["rev"]
    assert call("DELETE", "/db/_design/ips")[0] == 409
    assert call("DELETE", f"/db/_design/ips?rev={design}")[0] == 200


def test_a_tombstone_keeps_its_body_and_can_be_overwritten(call: Client) -> None:
    rev = call("PUT", "/db/192.0.2.1", {"n": 1})[1]["rev"]
    assert call("PUT", "/db/192.0.2.1", {"_rev": rev, "_deleted": True, "mark": "x"})[0] == 201
    assert call("GET", "/db/192.0.2.1")[0] == 404
    leaves = call("GET", "/db/192.0.2.1?open_revs=all")[1]
    assert [leaf["ok"]["mark"] for leaf in leaves] == ["x"]
    changes = call("GET", "/db/_changes?include_docs=true")[1]["results"]
    assert [change["doc"]["mark"] for change in changes] == ["x"]
    assert call("PUT", "/db/192.0.2.1", {"n": 2})[0] == 201


def test_a_list_without_reading_deleted_documents_is_the_same(call: Client) -> None:
    """PouchDB itself handles a list with `inclusive_end`."""
    chance = random.Random(7)
    keys = [f"%22{key}%22" for key in ("", "a", "a2", "b7", "c", "~")]
    names = [f"{letter}{number}" for letter in "abc" for number in range(20)]
    call("POST", "/db/_bulk_docs", {"docs": [{"_id": name} for name in names]})
    for _ in range(300):
        live = call("GET", "/db/_all_docs?inclusive_end=true")[1]["rows"]
        # Few documents are live at a time, so that the list skips the deleted ones.
        name = chance.choice([row["id"] for row in live] if len(live) > 6 else names)
        rev = call("GET", f"/db/{name}")[1].get("_rev")
        doc = {"_id": name, "n": chance.random(), "_deleted": bool(rev) and chance.random() < 0.9}
        if chance.random() < 0.1:
            doc |= {"_rev": f"1-{chance.randbytes(16).hex()}", "_deleted": chance.random() < 0.5}
            call("POST", "/db/_bulk_docs", {"docs": [doc], "new_edits": False})
        else:
            call("PUT", f"/db/{name}", doc | ({"_rev": rev} if rev else {}))
        query = "include_docs=true&conflicts=true"
        parts = [f"startkey={chance.choice(keys)}", f"endkey={chance.choice(keys)}",
                 "descending=true", f"limit={chance.randrange(4)}", "skip=1"]  # fmt: skip
        query = "&".join([query, *(part for part in parts if chance.random() < 0.4)])
        path = f"/db/_all_docs?{query}"
        assert call("GET", path) == call("GET", f"{path}&inclusive_end=true"), query


def test_conflicts_are_created_and_shown(call: Client) -> None:
    loser, winner = f"1-{'a' * 32}", f"1-{'b' * 32}"
    docs = [{"_id": "192.0.2.1", "_rev": rev} for rev in (loser, winner)]
    assert call("POST", "/db/_bulk_docs", {"docs": docs, "new_edits": False}) == (201, [])
    doc = {"_id": "192.0.2.1", "_rev": winner, "_conflicts": [loser]}
    assert call("GET", "/db/192.0.2.1?conflicts=true") == (200, doc)
    asked = {"keys": ["192.0.2.1", "192.0.2.9"]}
    rows = call("POST", "/db/_all_docs?include_docs=true&conflicts=true", asked)[1]["rows"]
    assert rows[0]["doc"] == doc
    assert rows[1] == {"key": "192.0.2.9", "error": "not_found"}
    ids = [{"id": "192.0.2.1"}, {"id": "192.0.2.9"}]
    existing, missing = call("POST", "/db/_bulk_get", {"docs": ids})[1]["results"]
    assert {leaf["ok"]["_rev"] for leaf in existing["docs"]} == {winner, loser}
    assert [leaf["error"]["error"] for leaf in missing["docs"]] == ["not_found"]
    assert call("POST", "/db/_bulk_get", {"ids": ids})[0] == 400
    assert call("POST", "/nowhere/_bulk_get", {"docs": ids})[0] == 404
    assert call("DELETE", f"/db/192.0.2.1?rev={loser}")[0] == 200
    assert call("GET", "/db/192.0.2.1?conflicts=true")[1] == {"_id": "192.0.2.1", "_rev": winner}


def test_views_answer_as_couchdbs_do(call: Client) -> None:
    hosts = [("us-east", "a"), ("us-east", "b"), ("us-west", "a"), ("us-east", "a")]
    docs = [{"_id": f"d{n}", "zone": zone, "host": host} for n, (zone, host) in enumerate(hosts)]
    call("POST", "/db/_bulk_docs", {"docs": docs})
    call("PUT", "/db/_design/ips", {"views": {"by_zone": {"map": MAP, "reduce": "_count"}}})
    view = "/db/_design/ips/_view/by_zone"
    assert call("GET", view)[1] == {"rows": [{"key": None, "value": 4}]}
    assert call("GET", f"{view}?group_level=1")[1]["rows"] == [
        {"key": ["us-east"], "value": 3},
        {"key": ["us-west"], "value": 1},
    ]
    key_range = "startkey=%5B%22us-east%22%5D&endkey=%5B%22us-east%22,%7B%7D%5D"
    rows = call("GET", f"{view}?reduce=false&{key_range}&skip=1&limit=1")[1]["rows"]
    assert rows == [{"key": ["us-east", "a"], "id": "d3", "value": 1}]
    asked = {"keys": [["us-west", "a"], ["nowhere", "a"]]}
    rows = call("POST", f"{view}?reduce=false&include_docs=true", asked)[1]["rows"]
    assert [row["doc"]["_id"] for row in rows] == ["d2"]
    assert call("GET", "/db/_design/nothing/_view/by_zone")[0] == 404
    assert call("GET", "/db/_design/ips/_view/nothing")[0] == 404
    assert call("POST", "/db/_view_cleanup", {})[0] == 200


def test_find_copy_and_attachments_work(call: Client) -> None:
    call("PUT", "/db/192.0.2.1", {"zone": "us-east"})
    found = call("POST", "/db/_find", {"selector": {"zone": "us-east"}})[1]["docs"]
    assert [doc["_id"] for doc in found] == ["192.0.2.1"]
    call("PUT", "/db/_design/ips", {"views": {}})
    assert call("COPY", "/db/_design/ips", Destination="_design/other")[0] == 201
    assert call("GET", "/db/_design/other")[0] == 200
    data = base64.b64encode(b"hello").decode()
    note = {"content_type": "text/plain", "data": data}
    assert call("PUT", "/db/note", {"_attachments": {"note.txt": note}})[0] == 201
    attached = call("GET", "/db/note?attachments=true")[1]["_attachments"]
    assert attached["note.txt"]["data"] == data


def test_a_thousand_documents_of_16_megabytes_go_in_one_request(call: Client) -> None:
    docs = [{"_id": f"doc-{n}", "filler": "x" * 16_000} for n in range(1000)]
    status, rows = call("POST", "/db/_bulk_docs", {"docs": docs})
    assert status == 201
    assert [row["id"] for row in rows] == [doc["_id"] for doc in docs]


def test_an_unknown_revision_is_handled(call: Client) -> None:
    call("PUT", "/db/doc", {})
    assert call("GET", "/db/doc?rev=1-x&latest=true")[0] == 404
    assert call("GET", "/db/doc")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/db", 200),
        ("GET", "/nothing", 404),
        ("PUT", "/db", 412),
        ("GET", "/db/_design/x/_view/y", 404),
        ("POST", "/db/_bulk_get", 400),
        ("GET", "/_session", 200),
    ],
)
def test_every_response_has_the_request_id(
    couch: EmbeddedCouch, call: Client, method: str, path: str, status: int
) -> None:
    for sent, received in (("Some_id-1", "Some_id-1"), ("no id", "[0-9a-f]{10}")):
        connection = HTTPConnection("127.0.0.1", couch.port, timeout=10)
        connection.request(method, path, headers={"X-Couch-Request-ID": sent})
        reply = connection.getresponse()
        assert reply.status == status
        assert re.fullmatch(received, reply.headers["X-Couch-Request-ID"])
        connection.close()


def test_fauxton_opens_without_a_login(couch: EmbeddedCouch, call: Client) -> None:
    connection = HTTPConnection("127.0.0.1", couch.port, timeout=10)
    try:
        connection.request("GET", "/_utils/")
        reply = connection.getresponse()
        assert (reply.status, b"<html" in reply.read()) == (200, True)
    finally:
        connection.close()
    assert call("GET", "/_session")[1]["userCtx"] == {"name": None, "roles": ["_admin"]}
    assert len(call("GET", "/_uuids?count=3")[1]["uuids"]) == 3


def test_of_several_writes_of_one_revision_only_the_first_is_done(call: Client) -> None:
    """PouchDB would add a leaf revision without content."""
    _, first = call("PUT", "/db/twice", {"number": 0})
    docs = [{"_id": "twice", "_rev": first["rev"], "number": number} for number in (1, 2)]
    status, rows = call("POST", "/db/_bulk_docs", {"docs": docs})
    assert (status, "ok" in rows[0], rows[1]["error"]) == (201, True, "conflict")
    _, leaves = call("GET", "/db/twice?open_revs=all")
    assert [leaf["ok"]["number"] for leaf in leaves] == [1]


def test_several_leaf_revisions_are_written_in_one_request(call: Client) -> None:
    _, first = call("PUT", "/db/conflict", {"number": 0})
    digests = [first["rev"].split("-")[1], "f" * 32]
    rival = {"_id": "conflict", "_rev": f"1-{digests[1]}", "number": 1}
    call("POST", "/db/_bulk_docs", {"docs": [rival], "new_edits": False})
    docs = [{"_id": "conflict", "_rev": f"1-{digest}", "_deleted": True} for digest in digests]
    _, rows = call("POST", "/db/_bulk_docs", {"docs": docs})
    assert [row["ok"] for row in rows] == [True, True]
    assert call("GET", "/db/conflict")[0] == 404


def _document(reply: Any) -> Any:
    """Return what a reply says of the only document, in one of the forms of `READS`."""
    while not isinstance(reply, dict) or "_id" not in reply:
        if isinstance(reply, list):
            [reply] = reply
        else:
            names = ("results", "rows", "docs", "ok", "doc")
            reply = next((reply[name] for name in names if name in reply), {"_id": None})
    return reply


BULK = {"docs": [{"id": "busy"}]}
READS: Mapping[str, tuple[str, Any]] = {
    "/db/busy": ("GET", None),
    "/db/busy?r=3": ("GET", None),
    "/db/busy?conflicts=true": ("GET", None),
    "/db/busy?open_revs=all": ("GET", None),
    "/db/busy?open_revs=all&r=3": ("GET", None),
    "/db/busy?open_revs=all&r=3&revs=true": ("GET", None),
    "/db/_bulk_get": ("POST", BULK),
    "/db/_bulk_get?revs=true": ("POST", BULK),
    "/db/_all_docs?include_docs=true": ("POST", {"keys": ["busy"]}),
}
"""The reads of a document that the service uses: method and body."""


@pytest.mark.parametrize("path", READS)
def test_a_document_is_read_while_it_is_written(call: Client, path: str) -> None:
    status, written = call("PUT", "/db/busy", {"number": 0})
    assert status == 201
    done = threading.Event()

    def write() -> None:
        client, revision = Client(call.couch), written["rev"]
        for number in range(200):
            _, reply = client("PUT", "/db/busy", {"_rev": revision, "number": number})
            revision = reply["rev"]
        done.set()

    method, body = READS[path]
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        while not done.is_set():
            status, reply = call(method, path, body)
            assert (status, "number" in _document(reply)) == (200, True), reply
        writing.result()


def test_no_leaf_revision_of_a_document_that_does_not_exist_is_read(call: Client) -> None:
    assert call("GET", "/db/none?open_revs=all") == (
        404, {"error": "not_found", "reason": "missing"},
    )  # fmt: skip


def test_a_view_has_each_write_before_the_read(call: Client) -> None:
    view = "/db/_design/d/_view/by_number"
    source = "function(doc) { emit(doc.number, null); }"
    call("PUT", "/db/_design/d", {"views": {"by_number": {"map": source}}})
    for number in range(3):
        _, written = call("PUT", f"/db/{number}", {"number": number})
        for _ in range(2):
            assert [row["key"] for row in call("GET", view)[1]["rows"]] == [*range(number + 1)]
    call("DELETE", f"/db/2?rev={written['rev']}")
    assert [row["key"] for row in call("GET", view)[1]["rows"]] == [0, 1]
    _, design = call("GET", "/db/_design/d")
    design["views"]["by_number"]["map"] = "function(doc) { emit(-doc.number, null); }"
    call("PUT", "/db/_design/d", design)
    assert [row["key"] for row in call("GET", view)[1]["rows"]] == [-1, 0]


def test_a_view_has_each_write_while_the_documents_change_again(call: Client) -> None:
    """PouchDB leaves out a document that changes while it reads the changes."""
    source = "function (doc) { emit(doc._id, doc.number); }"
    call("PUT", "/db/_design/d", {"views": {"all": {"map": source}}})
    written, done, stack = [-1], threading.Event(), ExitStack()
    stack.callback(done.set)

    def write() -> None:
        client = Client(call.couch)
        docs: list[dict[str, Any]] = [{"_id": f"d{n}"} for n in range(40)]
        with stack:
            for number in range(60):
                body = {"docs": [doc | {"number": number} for doc in docs]}
                for doc, row in zip(docs, client("POST", "/db/_bulk_docs", body)[1], strict=True):
                    doc["_rev"] = row["rev"]
                written[0] = number

    def read() -> None:
        client = Client(call.couch)
        while not done.is_set():
            least = written[0]
            rows = client("GET", "/db/_design/d/_view/all")[1]["rows"]
            assert least == -1 or len(rows) == 40
            assert min((row["value"] for row in rows), default=-1) >= least

    with ThreadPoolExecutor(4) as threads:
        for each in [threads.submit(write), *(threads.submit(read) for _ in range(3))]:
            each.result()


def test_a_view_is_complete_while_its_design_document_is_replaced(call: Client) -> None:
    call("POST", "/db/_bulk_docs", {"docs": [{"_id": f"d{n}"} for n in range(20)]})
    done = threading.Event()

    def define(number: int, revision: str | None) -> str:
        text = f"function (doc) {{ emit(doc._id, {number}); }}"
        document = {"views": {"all": {"map": text}}, **({"_rev": revision} if revision else {})}
        return str(call("PUT", "/db/_design/ips", document)[1]["rev"])

    def read() -> set[int]:
        seen = set()
        while not done.is_set():
            seen.add(len(call("GET", "/db/_design/ips/_view/all")[1]["rows"]))
        return seen

    revision = define(0, None)
    with ThreadPoolExecutor(4) as threads:
        readers = [threads.submit(read) for _ in range(4)]
        for number in range(1, 60):
            revision = define(number, revision)
        done.set()
        assert {count for reader in readers for count in reader.result()} == {20}


def test_a_reduction_has_each_write_before_the_read(call: Client) -> None:
    call("PUT", "/counted")
    view = "/counted/_design/d/_view/by_number"
    source = "function(doc) { emit([doc.number % 2, doc.number], null); }"

    def counts(query: str) -> list[int]:
        return [row["value"] for row in call("GET", f"{view}?{query}")[1]["rows"]]

    design = {"views": {"by_number": {"map": source, "reduce": "_count"}}}
    _, written = call("PUT", "/counted/_design/d", design)
    for number in range(4):
        call("PUT", f"/counted/{number}", {"number": number})
        for _ in range(2):
            assert counts("") == [number + 1]
            assert sum(counts("group_level=1")) == number + 1
            assert len(counts("group=true")) == number + 1
            assert counts("startkey=[0]&endkey=[0,{}]") == [number // 2 + 1]
    odd = "function(doc) { if (doc.number % 2) emit([doc.number], null); }"
    design["views"]["by_number"]["map"] = odd
    call("PUT", "/counted/_design/d", {**design, "_rev": written["rev"]})
    assert counts("") == [2]
    call("DELETE", "/counted")
    call("PUT", "/counted")
    call("PUT", "/counted/_design/d", design)
    call("PUT", "/counted/1", {"number": 1})
    assert counts("") == [1]


_KEYS = [
    *(None, False, True, -1.5, 0, 2, 10, 1e10, "", "a", "B", "\u0001", "\u00e9", "\u2028"),
    *([], ["a"], ["a", 1], ["a", 1, "x"], ["a", {}], ["b", None], [[]]),
    *({}, {"a": 1}, {"a": 2, "b": []}),
]
_EMITS = "function (doc) { doc.rows.forEach(function (row) { emit(row[0], row[1]); }); };"
_OWN = "function (keys, values) { return [keys.length, sum(values)]; }"
_REDUCTIONS = {
    "plain": None, "counted": "_count", "summed": "_sum", "stats": "_stats", "own": _OWN,
}  # fmt: skip


def random_document(chance: random.Random, name: str) -> dict[str, Any]:
    values = [None, 3, 0.5, "text", {"_id": "d1"}, [1, 2], [4]]
    rows = [[chance.choice(_KEYS), chance.choice(values)] for _ in range(chance.randrange(4))]
    numbers = [[key, chance.randrange(9)] for key, _ in rows]
    return {"_id": name, "rows": rows if chance.random() < 0.5 else numbers}


def random_query(chance: random.Random) -> str:
    keys = [json.dumps(each) for each in _KEYS]
    parts = {
        "startkey": chance.choice(keys), "endkey": chance.choice(keys),
        "key": chance.choice(keys), "keys": f"[{','.join(chance.sample(keys, 3))}]",
        "descending": chance.choice(["true", "false"]), "inclusive_end": "false",
        "skip": str(chance.randrange(-1, 4)), "limit": chance.choice(["0", "1", "5", "x"]),
        "include_docs": "true", "conflicts": "true", "reduce": "false",
        "group": "true", "group_level": str(chance.randrange(4)),
    }  # fmt: skip
    asked = {name: value for name, value in parts.items() if chance.random() < 0.25}
    if "keys" in asked:  # with these PouchDB differs from CouchDB
        asked.pop("descending", None)
        asked.pop("group_level", None)
    return urlencode(asked)


@pytest.mark.parametrize("size", [5, 60])
def test_views_answer_as_pouchdb_does(call: Client, size: int) -> None:
    """PouchDB itself handles a query with `If-Match`."""
    chance = random.Random(size)
    views = {name: {"map": _EMITS, **({"reduce": reduce} if reduce else {})}
             for name, reduce in _REDUCTIONS.items()}  # fmt: skip
    views["fails"] = {"map": "function (doc) { emit(1); emit(doc.rows[1][0], doc.absent.x); }"}
    views["wrong"] = {"map": "function (doc) {"}
    call("PUT", "/db/_design/d", {"views": views})
    statuses = set()
    for _ in range(8):
        docs = [random_document(chance, f"d{number}") for number in range(size)]
        for doc in docs:
            doc |= {"_rev": f"1-{chance.randbytes(16).hex()}", "_deleted": chance.random() < 0.1}
        changed = chance.sample(docs, chance.randrange(1, size))
        call("POST", "/db/_bulk_docs", {"docs": changed, "new_edits": False})
        for _ in range(40):
            path = f"/db/_design/d/_view/{chance.choice([*views])}?{random_query(chance)}"
            answer = call("GET", path)
            assert answer == call("GET", path, **{"If-Match": "1-x"}), path
            statuses.add(answer[0])
    assert statuses == {200, 400, 500}


def test_a_view_starts_and_ends_within_the_rows_of_a_key(call: Client) -> None:
    """As in CouchDB. PouchDB ignores `startkey_docid` and `endkey_docid`."""
    source = "function (doc) { emit(doc.n, null); emit(doc.n, null); }"
    call("PUT", "/db/_design/d", {"views": {"all": {"map": source}}})
    call("POST", "/db/_bulk_docs", {"docs": [{"_id": f"d{n}", "n": n // 3} for n in range(6)]})

    def ids(query: str) -> str:
        rows = call("GET", f"/db/_design/d/_view/all?{query}")[1]["rows"]
        return "".join(row["id"][1:] for row in rows)

    assert ids("startkey=0&startkey_docid=d1&endkey=1&endkey_docid=d4") == "11223344"
    assert ids("startkey=0&startkey_docid=d1&endkey=0") == "1122"
    assert ids("startkey=1&startkey_docid=d4&endkey=0&endkey_docid=d2&descending=true") == "443322"
    inner = "startkey=0&startkey_docid=d1&endkey=1&endkey_docid=d4&inclusive_end=false"
    assert ids(inner) == "112233"
    assert ids("startkey_docid=d1&endkey=0") == "001122"
    assert ids("key=0&startkey_docid=d1") == "1122"
    assert ids('startkey=0&startkey_docid="d1"&endkey=0') == "001122"  # an id with quotes
    assert ids("keys=[1,0]&descending=true") == "554433221100"


def test_a_document_is_indexed_whatever_its_texts_are(call: Client) -> None:
    source = "function(doc) { if (doc.text) { emit(doc.text, [doc.more]); } }"
    call("PUT", "/db/_design/texts", {"views": {"all": {"map": source}}})
    texts = [')({"', "z )({", "},undefined,undefined);return ", "\u2028\\", "})({'a'"]
    for text in texts:
        call("POST", "/db/_bulk_docs", {"docs": [{"_id": text, "text": text, "more": {text: 1}}]})
    rows = call("GET", "/db/_design/texts/_view/all")[1]["rows"]
    assert sorted((row["key"], row["value"]) for row in rows) == sorted(
        (text, [{text: 1}]) for text in texts
    )
