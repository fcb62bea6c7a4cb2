"""The audit of packages, with a server in place of PyPI that reports one vulnerability."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytestmark = pytest.mark.slow

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"


class Advisories(BaseHTTPRequestHandler):
    """PyPI's JSON API, as far as the audit reads it."""

    against = ""

    def do_GET(self) -> None:
        known = {"id": "PYSEC-1", "fixed_in": ["99.0"], "withdrawn": None}
        withdrawn = {"id": "PYSEC-2", "fixed_in": [], "withdrawn": "2026-01-01T00:00:00Z"}
        hit = self.path.lower().startswith(f"/{self.against}/") if self.against else False
        body = json.dumps({"vulnerabilities": [known, withdrawn] if hit else [withdrawn]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def source() -> Iterator[str]:
    """The URL of this server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Advisories) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def audit(source: str) -> tuple[int, str]:
    command = [sys.executable, str(AUDIT), source]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("package", ["", "werkzeug"])
def test_a_known_vulnerability_is_reported(
    source: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Advisories, "against", package)
    status, output = audit(source)
    assert status == (1 if package else 0)
    assert ("PYSEC-1, fixed in 99.0" in output) is bool(package)
    assert "PYSEC-2" not in output
    assert f"{1 if package else 0} known vulnerabilities" in output


def test_an_unreachable_source_is_reported_and_no_failure() -> None:
    status, output = audit("http://127.0.0.1:9")
    assert status == 0
    assert "NOT DONE" in output
