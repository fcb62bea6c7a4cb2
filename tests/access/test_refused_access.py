"""A CouchDB that refuses the service's user: what the log and the commands say."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner

from kazoo_ips import app as composition
from kazoo_ips import cli
from kazoo_ips.config import Settings
from kazoo_ips.processes import shared_table
from tests.api.replies import failure
from tests.openapi_check import CheckedApp

REFUSALS = {
    "login": (401, "unauthorized", "Name or password is incorrect."),
    "lockout": (
        403,
        "forbidden",
        "Account is temporarily locked due to multiple authentication failures",
    ),
    "database": (403, "forbidden", "You are not allowed to access this db."),
}
"""The reasons that CouchDB 3.5 gives."""


@pytest.fixture(params=REFUSALS)
def refusing(request: Any, settings: Settings) -> Iterator[tuple[Settings, str]]:
    """Settings for a server that refuses every request as CouchDB does, and its reason."""
    # An earlier test of this process may have had the same port, and its login may be refused.
    shared_table.shared.cache_clear()
    status, error, reason = REFUSALS[request.param]
    body = json.dumps({"error": error, "reason": reason}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                self.close_connection = True
                return
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://kazoo_ips:s3cret@127.0.0.1:{server.server_port}"
    yield replace(settings, couchdb_url=url, couchdb_admin_url=""), reason
    server.shutdown()
    server.server_close()


def test_a_missing_permission_is_503_and_named_in_the_log(
    refusing: tuple[Settings, str], operator: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings, reason = refusing
    with caplog.at_level(logging.ERROR):
        api = CheckedApp(composition.create_app(settings))
        reply = api.get("/v2/ips", headers=operator.headers, status=503)
    data = failure(reply, operator.token, "datastore_fault")
    of_login = "the database refuses the service's user or password"
    is_login = reason != REFUSALS["database"][2]
    assert data == {"message": of_login if is_login else "datastore fatal error"}
    message = f"CouchDB refuses GET /{settings.prefix}system_config/auth: {reason}"
    assert message in [record.getMessage() for record in caplog.records]
    assert "s3cret" not in caplog.text


def test_a_refused_login_leaves_no_credentials_in_the_log(
    refusing: tuple[Settings, str], caplog: pytest.LogCaptureFixture
) -> None:
    settings, _ = refusing
    api = CheckedApp(composition.create_app(settings))
    key = "5ec4e7" * 10 + "abcd"
    api.put_json("/v2/api_auth", {"data": {"api_key": key}}, status=503)
    assert "by_login" in caplog.text
    assert key not in caplog.text


@pytest.mark.parametrize("command", [["setup"], ["summary"], ["account", "list"], ["doctor"]])
def test_a_command_reports_a_refusal_in_one_line(
    refusing: tuple[Settings, str],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, reason = refusing
    monkeypatch.setenv("COUCHDB_URL", settings.couchdb_url)
    monkeypatch.setenv("COUCHDB_ADMIN_URL", "")
    monkeypatch.setattr("sys.argv", ["kazoo-ips", *command])
    with pytest.raises(SystemExit) as end:
        cli.main()
    output = capsys.readouterr()
    assert end.value.code == 1
    assert output.out == ""
    [line] = output.err.splitlines()
    assert line.startswith("CouchDB refuses ")
    assert line.endswith(f": {reason}")


NO_ADMINISTRATOR = "COUCHDB_ADMIN_URL: name and password of an administrator are needed"


@pytest.mark.parametrize(
    ("url", "admin_url", "line"),
    [
        ("http://h", "", NO_ADMINISTRATOR),
        ("http://h", "http://a:b@h", "COUCHDB_URL: the service's name and password are needed"),
        ("http://a:c@h", "", NO_ADMINISTRATOR),
        ("http://a:c@h", "http://h", NO_ADMINISTRATOR),
        ("http://a:c@h", "http://a:b@h", "COUCHDB_URL: the service needs a user of its own"),
    ],
)
def test_secure_needs_two_different_users(url: str, admin_url: str, line: str) -> None:
    runner = CliRunner(env={"COUCHDB_URL": url, "COUCHDB_ADMIN_URL": admin_url})
    done = runner.invoke(cli.cli, ["secure"])
    assert (done.exit_code, str(done.exception)) == (1, line)
