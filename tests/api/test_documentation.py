"""The published documentation of Kazoo's API: the tests run its curl and sup lines as printed.

They read the lines from `documentation/kazoo-ips-api.txt`.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, SOCK_DGRAM, socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from kazoo_ips.app import Instance
from kazoo_ips.model import AssignIP
from tests.openapi_check import check

TEXT = (Path(__file__).parents[1] / "documentation" / "kazoo-ips-api.txt").read_text()
FIRST, SECOND = "1.2.3.4", "5.6.7.8"
ZONE, HOST = "us-east", "proxy1.us-east.myswitch.com"


@dataclass(frozen=True)
class Sample:
    """One request of the documentation and, where it has one, the reply."""

    title: str
    route: str
    curl: str
    reply: dict[str, Any] | None

    def filled(self, **values: str) -> "Sample":
        """The request with values in place of the placeholders."""
        curl, reply = self.curl, json.dumps(self.reply)
        for name, value in values.items():
            curl, reply = curl.replace(f"{{{name}}}", value), reply.replace(f"{{{name}}}", value)
        return Sample(self.title, self.route, curl, json.loads(reply))


def samples() -> list[Sample]:
    """The requests as printed, in their order."""
    found, route, title = [], "", ""
    lines = iter(TEXT.splitlines())
    for line in lines:
        if line.endswith("#"):
            title = line[:-1]
        if re.match(r"(GET|PUT|POST|DELETE) /v2/", line):
            route = line
        if line.startswith("curl "):
            curl = line
            while not line.lstrip().startswith("http://"):
                line = next(lines)  # noqa: PLW2901 - a request is several lines
                curl = f"{curl.removesuffix(chr(92))}{line}"  # one of them lacks its backslash
            found.append(Sample(title, route, curl, reply(lines)))
    return found


def reply(lines: Any) -> dict[str, Any] | None:
    if next(lines, "") != "{":
        return None
    text = "{"
    for line in lines:
        text += line
        if line == "}":
            break
    parsed: dict[str, Any] = json.loads(text)
    return parsed


SAMPLES = samples()


def test_the_documentation_has_these_requests() -> None:
    assert [(s.title, s.route) for s in SAMPLES] == [
        ("Fetch", "GET /v2/accounts/{ACCOUNT_ID}/ips"),
        ("Assign IPs to the account", "POST /v2/accounts/{ACCOUNT_ID}/ips"),
        ("Remove IPs from Account", "DELETE /v2/accounts/{ACCOUNT_ID}/ips"),
        ("Remove an IP assignment", "DELETE /v2/accounts/{ACCOUNT_ID}/ips/{IP_ADDRESS}"),
        ("Fetch details of the assignment", "GET /v2/accounts/{ACCOUNT_ID}/ips/{IP_ADDRESS}"),
        ("Assign a single IP to the account", "POST /v2/accounts/{ACCOUNT_ID}/ips/{IP_ADDRESS}"),
        ("Fetch hosts", "GET /v2/accounts/{ACCOUNT_ID}/ips/hosts"),
        ("Fetch zone listings", "GET /v2/accounts/{ACCOUNT_ID}/ips/zones"),
        ("Fetch IPs assigned to this account", "GET /v2/accounts/{ACCOUNT_ID}/ips/assigned"),
        ("Via API", "PUT /v2/ips"),
    ]
    assert [s.title for s in SAMPLES if s.reply is None] == ["Via API"]


def test_the_documentation_is_the_published_one() -> None:
    published = Path(__file__).parents[3] / "shared" / "seed" / "kazoo-ips-api.txt"
    if not published.exists():
        pytest.skip("the published text is not here")
    assert published.read_text() == TEXT


def curl(line: str) -> tuple[int, dict[str, str], Any]:
    """Run the line unchanged. Its `-v` prints status and headers."""
    done = subprocess.run(
        shlex.split(line), capture_output=True, text=True, timeout=30, check=True
    )
    # If the reply takes a second, the progress meter precedes the first line on the same line.
    head_lines = re.findall(r"(?:^|[\s\d:-])< ([^\r\n]+)", done.stderr, re.MULTILINE)
    headers = dict(each.split(": ", 1) for each in head_lines[1:] if ": " in each)
    status = int(head_lines[0].split()[1])
    words = shlex.split(line)
    check(
        words[words.index("-X") + 1], urlsplit(words[-1]).path, status, headers,
        done.stdout.encode(),
    )  # fmt: skip
    return status, headers, json.loads(done.stdout)


ASSIGNED_BEFORE = {
    "Remove IPs from Account",
    "Remove an IP assignment",
    "Fetch details of the assignment",
    "Fetch IPs assigned to this account",
}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.title)
def test_a_request_of_the_documentation_gets_the_reply_printed_there(
    live: str, services: Instance, add: Callable[..., Any], operator: Any, alice: Any,
    sample: Sample,
) -> None:  # fmt: skip
    creates = sample.reply is None
    who = operator if creates else alice
    done = sample.filled(AUTH_TOKEN=who.token, ACCOUNT_ID=alice.id, IP_ADDRESS=FIRST)
    needed = [] if creates else [FIRST, SECOND] if SECOND in json.dumps(done.reply) else [FIRST]
    for address in needed:
        add(address, ZONE, HOST)
        if sample.title in ASSIGNED_BEFORE:
            services.ips.assign(AssignIP(alice.id, address), "0" * 32)

    status, headers, body = curl(done.curl.replace("http://{SERVER}:8000", live))
    assert headers["Content-Type"] == "application/json"
    assert body["request_id"] == headers["X-Request-ID"]
    assert headers["ETag"] == f'"{body["revision"]}"'
    if creates:
        assert status == 201
        assert body["data"]["ip"] == FIRST
        assert (body["data"]["zone"], body["data"]["host"]) == (ZONE, HOST)
        return
    assert status == 200
    assert done.reply is not None
    made_here = {"REQUEST_ID": body["request_id"], "REVISION": body["revision"]}
    assert all(made_here.values())
    printed_reply = done.filled(**made_here).reply
    assert printed_reply is not None
    more = {"node", "timestamp", "version"}
    paged = {"page_size"} if sample.route.endswith(("/ips", "/assigned")) and (
        sample.route.startswith("GET")
    ) else set()  # fmt: skip
    assert body.keys() == printed_reply.keys() | more | paged
    assert {k: body[k] for k in printed_reply if k != "data"} == {
        k: v for k, v in printed_reply.items() if k != "data"
    }
    data = body["data"]
    if paged:  # the lists of this service have the host as well
        data = [{k: v for k, v in each.items() if k != "host"} for each in data]
        assert [each["host"] for each in body["data"]] == [HOST]
    assert data == printed_reply["data"]


def test_the_command_of_the_documentation_prints_the_line_printed_there(
    environment: dict[str, str], services: Instance, pool: Any, tmp_path: Path
) -> None:
    lines = TEXT.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("sup kazoo_ips_maintenance"))
    command, printed = shlex.split(lines[place]), lines[place + 1]
    command[0] = str(Path(sys.executable).with_name("sup"))
    with socket(AF_UNIX, SOCK_DGRAM) as system_log:  # the audit line is written there
        system_log.bind(str(tmp_path / "log"))
        environment = {**environment, "KAZOO_IPS_SYSLOG": str(tmp_path / "log")}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=False, env=environment
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{printed}\n", "")
    made = services.ips.fetch(FIRST)
    assert (made.zone, made.host) == (ZONE, HOST)
