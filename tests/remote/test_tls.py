"""Commands over TLS, against a server with a certificate of a CA of our own."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.command_results import CommandResult
from tests.conftest import Member
from tests.remote.conftest import Run


class CA:
    """A certificate authority, and the certificates that it has signed.

    :param folder: where its files are
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.file = folder / "ca.pem"
        self._openssl("req", "-x509", *_NEW_KEY, "-subj", "/CN=Our own CA", "-days", "2",
                      "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip

    def sign(self, host: str, *, days: int = 2) -> ssl.SSLContext:
        """Return the context of a server with a certificate for a host.

        :param days: how long it is valid from now; a negative number is the past
        """
        self._openssl(
            "req", *_NEW_KEY, "-subj", f"/CN={host}", "-keyout", "key", "-out", "request"
        )
        (self._folder / "names").write_text(f"subjectAltName={host}\n")
        self._openssl("x509", "-req", "-in", "request", "-CA", "ca.pem", "-CAkey", "ca.key",
                      "-days", str(days), "-extfile", "names", "-out", "certificate")  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "certificate", self._folder / "key")
        return context

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=self._folder, check=True, capture_output=True, timeout=30)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class TLSProxy:
    """Decrypts connections, and passes their bytes on to a server, as a reverse proxy does.

    :param context: the certificate
    :param url: the URL of the server
    """

    def __init__(self, context: ssl.SSLContext, url: str) -> None:
        self._context = context
        self._server = (urlsplit(url).hostname, urlsplit(url).port)

    def __enter__(self) -> "TLSProxy":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, raw: socket.socket) -> None:
        with (
            suppress(OSError),
            self._context.wrap_socket(raw, server_side=True) as client,
            socket.create_connection(self._server) as server,
        ):
            back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            back.start()
            _pass_on(client, server)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65_536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return CA(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def secure(ca: CA, live: str) -> Iterator[str]:
    """The URL of the service over TLS."""
    with TLSProxy(ca.sign("IP:127.0.0.1"), live) as proxy:
        yield proxy.url


@pytest.fixture
def over_tls(
    run: Run, without_couchdb: None, secure: str, operator: Member
) -> Callable[..., CommandResult]:
    """A function that runs a command over TLS, with the operator's token."""
    return lambda *words: run("--url", secure, "--token", operator.token, *words)


@pytest.mark.usefixtures("pool")
def test_commands_trust_the_file_of_certificates(
    over_tls: Run, ca: CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = over_tls("--ca-file", str(ca.file), "add", "192.0.2.1", "us-east", "proxy1")
    assert (added.status, added.err) == (0, "")
    monkeypatch.setenv("KAZOO_IPS_CA_FILE", str(ca.file))
    assert "192.0.2.1" in over_tls("summary").out
    assert '"type":"end"' in over_tls("export", "--no-history").out


def test_without_it_one_line_says_what_to_do(over_tls: Run, secure: str) -> None:
    done = over_tls("summary")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"{secure}: ")
    assert "certificate" in done.err
    assert done.err.endswith("; --ca-file names a file of certificates to trust\n")
    assert done.err.count("\n") == 1


def test_a_file_without_certificates_is_named(over_tls: Run, tmp_path: Path) -> None:
    file = tmp_path / "nonsense.pem"
    file.write_text("nonsense")
    done = over_tls("--ca-file", str(file), "summary")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"{file} has no certificates\n"


@pytest.mark.parametrize(
    ("host", "days", "reason"),
    [("DNS:other.example.com", 2, "127.0.0.1"), ("IP:127.0.0.1", -1, "expired")],
)
def test_a_certificate_for_another_host_or_time_is_refused(
    run: Run, without_couchdb: None, ca: CA, live: str, operator: Member, host: str, days: int,
    reason: str,
) -> None:  # fmt: skip
    with TLSProxy(ca.sign(host, days=days), live) as proxy:
        done = run(
            "--url", proxy.url, "--token", operator.token, "--ca-file", str(ca.file), "summary"
        )
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert reason in done.err


@pytest.mark.usefixtures("pool")
def test_a_profile_keeps_the_file_of_certificates(
    run: Run, without_couchdb: None, secure: str, ca: CA, operator: Member,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    login = ("login", "--url", secure, "--account", operator.account.realm, "--username", "admin")
    file = ca.file.with_name("password")
    file.write_text("secret\n")
    with file.open(encoding="utf-8") as password, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", password)
        done = run(*login, "--password-stdin", "--ca-file", str(ca.file))
    assert done.status == 0, done.err
    assert run("summary").status == 0
    assert run("--profile", "default", "account", "list").status == 0
    by_url = run("--url", secure, "account", "list")  # the profile with this URL
    assert (by_url.status, by_url.err) == (0, "")
