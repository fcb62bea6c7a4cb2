"""Many addresses at once: `kazoo-ips add` with files, blocks and ranges, and `PUT /v2/ips`."""

import codecs
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from webtest import TestApp

from kazoo_ips import cli
from kazoo_ips.app import Instance
from kazoo_ips.config import Settings
from kazoo_ips.model import AssignIP, DeleteIP
from kazoo_ips.services.pool.address_lists import read_list
from tests.api.couchdb import Databases, kazoo_document
from tests.api.replies import (
    broken,
    failure,
    invalid,
    no_address,
    required,
    success,
    wrong_type,
)

ZONE, HOST = "us-east", "proxy1.example.com"
HEADER = "ip,zone,host"

Add = Callable[..., Result]


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch, settings: Settings, pool: Any) -> Add:
    """A function that runs `kazoo-ips add`, with a text on standard input."""
    monkeypatch.setenv("COUCHDB_URL", settings.couchdb_url)
    monkeypatch.setenv("KAZOO_IPS_PREFIX", settings.prefix)

    def run(*arguments: str, given: str | bytes | None = None) -> Result:
        if given is not None:
            arguments = ("--from", "-", *arguments)
        return CliRunner().invoke(cli.cli, ["add", *arguments], input=given)

    return run


def lines(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows, ""])


def in_pool(databases: Databases) -> dict[str, tuple[str, str]]:
    rows = databases("GET", "dedicated_ips", "/_all_docs?include_docs=true")["rows"]
    documents = [row["doc"] for row in rows if not row["id"].startswith("_design/")]
    return {d["_id"]: (d["pvt_zone"], d["pvt_host"]) for d in documents}


# Files


def test_a_file_is_imported_with_a_result_for_each_line(
    fill: Add, databases: Databases, tmp_path: Path
) -> None:
    file = tmp_path / "pool.csv"
    file.write_text(lines("192.0.2.1,us-east,a.example.com", "2001:DB8::1,eu,b.example.com"))
    result = fill("--from", str(file))
    assert result.output == "line 2: 192.0.2.1 added\nline 3: 2001:db8::1 added\n2 added\n"
    assert result.exit_code == 0
    assert in_pool(databases) == {
        "192.0.2.1": ("us-east", "a.example.com"),
        "2001:db8::1": ("eu", "b.example.com"),
    }
    made = databases.get("dedicated_ips", "192.0.2.1")
    by_kazoo = kazoo_document("192.0.2.1")
    ours = {"_rev", "pvt_request_id", "pvt_trail", "pvt_written_generation"}
    assert set(made) - ours == set(by_kazoo) - {"_rev"}
    assert (made["pvt_status"], made["pvt_created"]) == ("available", made["pvt_modified"])


def test_the_same_file_again_changes_nothing(
    fill: Add, databases: Databases, services: Instance, alice: Any
) -> None:
    given = lines(f"192.0.2.1,{ZONE},{HOST}", f"2001:db8::1,{ZONE},{HOST}")
    fill(given=given)
    services.ips.assign(AssignIP(alice.id, "192.0.2.1"), uuid4().hex)
    before = databases.get("dedicated_ips", "192.0.2.1")
    result = fill(given=given)
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "line 2: 192.0.2.1 unchanged", "line 3: 2001:db8::1 unchanged", "2 unchanged",
    ]  # fmt: skip
    assert databases.get("dedicated_ips", "192.0.2.1") == before


MIXED = lines(
    f"192.0.2.1,{ZONE},{HOST}",
    f"192.0.2.1,{ZONE},{HOST}",
    f"192.0.2.1,elsewhere,{HOST}",
    f"192.0.2.0/30,{ZONE},{HOST}",
    f"nope,{ZONE},{HOST}",
    f"192.0.2.9,,{HOST}",
    "192.0.2.9",
    f"192.0.2.8,{ZONE},{HOST}",
)
REPORT = [
    "line 2: 192.0.2.1 {added}",
    "line 3: 192.0.2.1 repeated",
    "line 4: 192.0.2.1 contradictory: an earlier line has another zone or host",
    "line 5: 192.0.2.0 {added}",
    "line 5: 192.0.2.1 repeated",
    "line 5: 192.0.2.2 {added}",
    "line 5: 192.0.2.3 {added}",
    "line 6: nope invalid: 'nope' is not an address",
    "line 7: 192.0.2.9 invalid: no zone",
    "line 8: 192.0.2.9 invalid: 1 cells instead of 3",
    "line 9: 192.0.2.8 different: in zone old on old.example.com",
    "4 {added}, 2 repeated, 1 contradictory, 3 invalid, 1 different",
]


def test_a_dry_run_prints_the_same_results_and_writes_nothing(
    fill: Add, load: Any, databases: Databases
) -> None:
    load(kazoo_document("192.0.2.8", "old", "old.example.com"))
    dry = fill("--dry-run", given=MIXED)
    assert list(in_pool(databases)) == ["192.0.2.8"]
    added = fill(given=MIXED)
    for result, word in [(dry, "would be added"), (added, "added")]:
        assert result.output.splitlines() == [line.format(added=word) for line in REPORT]
        assert result.exit_code == 1
    assert in_pool(databases) == {
        **{f"192.0.2.{n}": (ZONE, HOST) for n in range(4)},
        "192.0.2.8": ("old", "old.example.com"),
    }


def test_the_results_are_json_on_request(fill: Add, load: Any) -> None:
    load(kazoo_document("192.0.2.2", "old", "old.example.com"))
    rows = (f"192.0.2.1-192.0.2.2,{ZONE},{HOST}", f"192.0.2.0/33,{ZONE},{HOST}")
    result = fill("--json", given=lines(*rows))
    row = {"line": 2, "given": "192.0.2.1-192.0.2.2", "zone": ZONE, "host": HOST}
    existing = {"zone": "old", "host": "old.example.com"}
    why = "/33 is not a prefix length of IPv4"
    assert [json.loads(line) for line in result.output.splitlines()] == [
        {**row, "ip": "192.0.2.1", "result": "added"},
        {**row, "ip": "192.0.2.2", "result": "different", "there": existing},
        {"line": 3, "given": "192.0.2.0/33", "result": "invalid", "reason": why},
        {"sum": {"added": 1, "different": 1, "invalid": 1}},
    ]
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "given",
    [
        f"192.0.2.1,{ZONE},{HOST}",
        f"\ufeff{HEADER}\r\n192.0.2.1,{ZONE},{HOST}\r\n",
        f"Host;note;ZONE; IP \n{HOST};;{ZONE};192.0.2.1\n",
        f"\n# ours\nip\tzone\thost\n\n# one\n 192.0.2.1 \t{ZONE}\t{HOST}",
        f'"ip", "zone", "host"\n"192.0.2.1", "{ZONE}", "{HOST}"\n',
        f"ip;zone;host;;\n;;;;\n192.0.2.1;{ZONE};{HOST};;\n;;;;\n",
        f'ip,zone,host\n,,\n192.0.2.1,{ZONE},{HOST}\n"","",""\n , ,\n\t\t\n',
        f"IP Address,Zone,Hostname\n192.0.2.1,{ZONE},{HOST}\n",
        f"Host Name\tZONE\tip-address\n{HOST}\t{ZONE}\t192.0.2.1\n",
        f"Address;zone;host\n192.0.2.1;{ZONE};{HOST}\n",
        f"ip,zone,host\r192.0.2.1,{ZONE},{HOST}\r",
        f"# ours\rip;zone;host\r\r192.0.2.1;{ZONE};{HOST}",
        f"sep=;\r\nip;zone;host\r\n192.0.2.1;{ZONE};{HOST}\r\n",
        f'"SEP=\t"\nip\tzone\thost\n192.0.2.1\t{ZONE}\t{HOST}\n',
        f"IP,Address,zone,host,hostname\n192.0.2.1,Main Street 1,{ZONE},{HOST},x\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_list_in_the_form_of_a_spreadsheet_is_accepted(
    fill: Add, databases: Databases, given: str, encoding: str
) -> None:
    result = fill(given=given.removeprefix("\ufeff").encode(encoding))
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert in_pool(databases) == {"192.0.2.1": (ZONE, HOST)}
    result = fill("--dry-run", given=given.encode())
    assert (result.exit_code, result.stderr) == (0, ""), result.output


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("width", range(9))
def test_a_long_list_is_read_to_its_end_whatever_ends_its_lines(end: str, width: int) -> None:
    rows = [f"192.0.{n >> 8}.{n & 255},z,{'x' * 60}" for n in range(5000)]
    # The parts that the reader reads can end at any byte.
    text = end.join(["ip,zone,host" + " " * width, *rows])
    for encoding in ("utf-8", "utf-16"):
        read = list(read_list(io.BytesIO(text.encode(encoding))))
        assert [row.line for row in read] == list(range(2, 5002))
        assert [f"{row.given},{row.zone},{row.host}" for row in read] == rows


def test_a_file_that_cannot_be_read_is_one_line(fill: Add) -> None:
    result = fill("--from", "/proc/self/mem")  # its first page cannot be read
    assert (result.exit_code, result.stdout) == (1, "nothing to add\n")
    assert result.stderr == "the file cannot be read: Input/output error\n"


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_long_list_in_utf_16_is_read_to_its_end(
    fill: Add, databases: Databases, mark: bytes
) -> None:
    text = lines(*(f"192.0.2.{n},Zürich {'x' * 200},h" for n in range(200)))
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    result = fill(given=mark + text.encode(encoding))
    assert result.output.splitlines()[-1] == "200 added"
    assert {zone for zone, _ in in_pool(databases).values()} == {f"Zürich {'x' * 200}"}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("name,place\n", "line 1 does not name the columns ip, zone and host: name,place"),
        (f"nope,{ZONE},{HOST}\n", "line 1 does not name the columns"),
        ("ip,zone,host,ip\n", "line 1 has the column ip twice"),
        ('"ip,zone\n', "line 1 is not CSV"),
        ("x" * 70_000, "line 1 is too long for a list of addresses"),
        (
            "ip;zone;höst\n".encode("cp1252"),
            "line 1 is not UTF-8: byte 0xf6 in column 10; probably it is Windows-1252\n",
        ),
        (b"PK\x03\x04\x14\0\x08", "this is a workbook of a spreadsheet; save it as CSV\n"),
        (b"\x1f\x8b\x08\0\0", "this file is compressed with gzip; decompress it\n"),
        (HEADER.encode("utf-16-le"), "line 1 is not UTF-8; probably it is UTF-16 or UTF-32\n"),
        (HEADER.encode("utf-32"), "line 1 is not UTF-8; probably it is UTF-16 or UTF-32\n"),
        (f"{HEADER}\n".encode("utf-16")[:-1], "line 1 or a later one is not UTF-16\n"),
        (("x" * 70_000).encode("utf-16"), "line 1 is too long for a list of addresses\n"),
    ],
)
def test_a_file_that_is_no_list_is_refused(fill: Add, given: str | bytes, why: str) -> None:
    result = fill(given=given)
    assert result.exit_code == 1
    assert result.stderr.startswith(why)
    assert result.stdout == "nothing to add\n"


def test_an_invalid_line_does_not_stop_the_import(fill: Add, databases: Databases) -> None:
    rows = [b"192.0.2.1,z\xfcrich,h", b'192.0.2.2,"open,h', b"192.0.2.3,z,h", b""]
    result = fill(given=b"\n".join([HEADER.encode(), *rows]))
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "2 invalid, 1 added"
    assert list(in_pool(databases)) == ["192.0.2.3"]


def test_the_error_for_bytes_that_are_not_utf_8_names_line_column_and_encoding(fill: Add) -> None:
    rows = [b"192.0.2.1,z\xfcrich,h", b"192.0.2.2,\x81,h", "192.0.2.3,äö".encode()[:-1]]
    result = fill("--json", given=b"\n".join([HEADER.encode(), b"# f\xfcr uns", *rows]))
    reports = [json.loads(line) for line in result.stdout.splitlines()[:-1]]
    assert [(report["line"], report["reason"]) for report in reports] == [
        (3, "not UTF-8: byte 0xfc in column 12; probably it is Windows-1252"),
        (4, "not UTF-8: byte 0x81 in column 11"),
        (5, "not UTF-8: byte 0xc3 in column 12; probably it is Windows-1252"),
    ]


def test_an_empty_list_is_a_success(fill: Add) -> None:
    for given in ("", HEADER, "\n\n", ";;;;\n", ",,", f"{HEADER}\n,,\n"):
        result = fill(given=given)
        assert (result.exit_code, result.output) == (0, "nothing to add\n")


def test_more_than_one_batch_keeps_the_order(fill: Add, databases: Databases) -> None:
    given = lines(f"10.0.0.0/22,{ZONE},{HOST}", f"10.0.16.0/22,{ZONE},{HOST}", "x,y,z",
                  f"10.0.0.0/24,{ZONE},{HOST}")  # fmt: skip
    result = fill(given=given)
    report = result.output.splitlines()
    assert report[-1] == "2048 added, 1 invalid, 256 repeated"
    assert report[:2] + report[1023:1025] == [
        "line 2: 10.0.0.0 added", "line 2: 10.0.0.1 added", "line 2: 10.0.3.255 added",
        "line 3: 10.0.16.0 added",
    ]  # fmt: skip
    assert len(in_pool(databases)) == 2048


def test_a_deleted_address_is_added_again(fill: Add, services: Instance) -> None:
    given = lines(f"192.0.2.1,{ZONE},{HOST}", f"192.0.2.2,{ZONE},{HOST}")
    fill(given=given)
    services.pool.delete(DeleteIP("192.0.2.1"), uuid4().hex)
    assert fill("--dry-run", given=given).output.endswith("1 would be added, 1 unchanged\n")
    assert fill(given=given).output.endswith("1 added, 1 unchanged\n")
    assert services.ips.fetch("192.0.2.1").zone == ZONE


def test_an_address_in_another_spelling_is_not_added_again(
    fill: Add, load: Any, databases: Databases
) -> None:
    load(
        kazoo_document("2001:DB8:0::1", ZONE, HOST),
        kazoo_document("2001:db8::0002", "old", "old.example.com"),
    )
    given = lines(f"2001:db8::/126,{ZONE},{HOST}")
    for option, word in [(("--dry-run",), "would be added"), ((), "added")]:
        assert fill(*option, given=given).output.splitlines() == [
            f"line 2: 2001:db8:: {word}",
            "line 2: 2001:db8::1 unchanged",
            "line 2: 2001:db8::2 different: in zone old on old.example.com",
            f"line 2: 2001:db8::3 {word}",
            f"2 {word}, 1 unchanged, 1 different",
        ]
    assert set(in_pool(databases)) == {
        "2001:DB8:0::1", "2001:db8::0002", "2001:db8::", "2001:db8::3",
    }  # fmt: skip


# Blocks and ranges on the command line


def test_a_block_on_the_command_line(fill: Add, databases: Databases) -> None:
    result = fill("192.0.2.0/30", ZONE, HOST)
    assert result.output.splitlines() == [*(f"192.0.2.{n} added" for n in range(4)), "4 added"]
    result = fill("192.0.2.3-192.0.2.4", ZONE, HOST)
    assert result.output.splitlines() == ["192.0.2.3 unchanged", "192.0.2.4 added",
                                        "1 unchanged, 1 added"]  # fmt: skip
    assert fill("192.0.2.9", ZONE, HOST, "--dry-run").output.startswith("192.0.2.9 would be added")
    assert len(in_pool(databases)) == 5


@pytest.mark.parametrize("block", ["192.0.2.1/30", "10.0.0.0/8", "2001:db8::/64", "192.0.2.0/x"])
def test_an_invalid_block_is_refused(fill: Add, block: str) -> None:
    result = fill(block, ZONE, HOST)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"unable to add IP {block}: ")


@pytest.mark.parametrize(
    "arguments", [("--from", "-", "192.0.2.1"), ("192.0.2.1", ZONE), ("--dry-run",),
                  ("--from", "/nonexistent")],
)  # fmt: skip
def test_a_usage_error_of_add_exits_with_status_2(fill: Add, arguments: tuple[str, ...]) -> None:
    assert fill(*arguments).exit_code == 2


# PUT /v2/ips with a list


def item(ip: str, zone: str = ZONE, host: str = HOST) -> dict[str, str]:
    return {"ip": ip, "zone": zone, "host": host}


def test_a_list_is_created_and_shown_in_its_order(
    api: TestApp, pool: Any, databases: Databases, operator: Any
) -> None:
    wanted = [item("192.0.2.2"), item("2001:DB8::1", "eu"), item("192.0.2.1")]
    body = {"data": {"ips": wanted}}
    reply = api.put_json("/v2/ips", body, headers=operator.headers, status=201)
    made = success(reply, operator.token)["ips"]
    assert [each["ip"] for each in made] == ["192.0.2.2", "2001:db8::1", "192.0.2.1"]
    for each in made:
        one = api.get(f"/v2/ips/{each['ip']}", headers=operator.headers, status=200)
        assert each["_read_only"].pop("rev") == one.json["revision"]
        assert {**one.json["data"], "_read_only": each["_read_only"]} == each
    assert len(in_pool(databases)) == 3


def test_a_list_is_created_under_the_accounts_path_too(
    api: TestApp, pool: Any, operator: Any
) -> None:
    path = f"/v2/accounts/{operator.id}/ips"
    body = {"data": {"ips": [item("192.0.2.1")]}}
    reply = api.put_json(path, body, headers=operator.headers, status=201)
    assert success(reply, operator.token)["ips"][0]["ip"] == "192.0.2.1"


@pytest.mark.parametrize("existing", ["192.0.2.2", "2001:DB8:0::2"])
def test_a_list_with_an_address_that_exists_creates_none(
    api: TestApp, load: Any, databases: Databases, operator: Any, existing: str
) -> None:
    load(kazoo_document(existing))
    wanted = [item("192.0.2.1"), item(existing), item("2001:db8::3")]
    body = {"data": {"ips": wanted}}
    reply = api.put_json("/v2/ips", body, headers=operator.headers, status=409)
    assert failure(reply, operator.token, "datastore_conflict") == {
        "ips": {existing.lower().replace(":0::", "::"): "exists"},
        "message": "conflicting documents",
    }
    assert list(in_pool(databases)) == [existing]


def test_every_broken_rule_of_a_list_is_reported_by_index(
    api: TestApp, pool: Any, databases: Databases, operator: Any
) -> None:
    nope = {"ip": "nope", "zone": 7}
    wanted = [item("192.0.2.1"), 5, nope, item("192.0.2.1"), item("2001:db8::1", "")]
    body = {"data": {"ips": wanted}}
    reply = api.put_json("/v2/ips", body, headers=operator.headers, status=400)
    host = required("host")["host"]
    short = {"target": 1, "cause": "", "value": ""}
    assert invalid(reply, operator.token) == {
        **wrong_type("ips.1", "object", 5),
        **no_address("ips.2.ip", "nope"),
        **wrong_type("ips.2.zone", "string", 7),
        "ips.2.host": host,
        **broken("ips.3.ip", "uniqueItems", "List of items is not unique", value="192.0.2.1"),
        **broken("ips.4.zone", "minLength", "String must be at least 1 characters", **short),
    }
    assert in_pool(databases) == {}


@pytest.mark.parametrize(
    ("data", "path", "rule"),
    [
        ({"ips": []}, "ips", "minItems"),
        ({"ips": {}}, "ips", "type"),
        ({"ips": None}, "ips", "type"),
        ({"ips": [item(f"10.0.{n // 256}.{n % 256}") for n in range(1001)]}, "ips", "maxItems"),
        ({"ips": [item("192.0.2.1")], "ip": "192.0.2.2"}, "ip", "forbidden"),
    ],
)
def test_an_empty_malformed_or_long_list_is_refused(
    api: TestApp, pool: Any, databases: Databases, operator: Any, data: Any, path: str, rule: str
) -> None:
    reply = api.put_json("/v2/ips", {"data": data}, headers=operator.headers, status=400)
    assert {p: list(r) for p, r in invalid(reply, operator.token).items()} == {path: [rule]}
    assert in_pool(databases) == {}


def test_only_the_operator_creates_a_list(
    api: TestApp, pool: Any, databases: Databases, alice: Any
) -> None:
    body = {"data": {"ips": [item("192.0.2.1")]}}
    for path in ("/v2/ips", f"/v2/accounts/{alice.id}/ips"):
        api.put_json(path, body, headers=alice.headers, status=403)
    assert in_pool(databases) == {}


def test_a_list_is_created_once_for_each_key(api: TestApp, pool: Any, operator: Any) -> None:
    body = {"data": {"ips": [item("192.0.2.1"), item("192.0.2.2")]}}
    headers = {**operator.headers, "Idempotency-Key": uuid4().hex}
    first = api.put_json("/v2/ips", body, headers=headers, status=201)
    again = api.put_json("/v2/ips", body, headers=headers, status=201)
    assert again.json["data"] == first.json["data"]
    assert again.headers["Idempotency-Replayed"] == "true"
