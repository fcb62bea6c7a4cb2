"""Brokers and Crossbar by TLS: certificates and their names are verified."""

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import create_server, socket

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kazoo_ips.errors import ReceiverUnavailable
from kazoo_ips.outbound.amqp import Broker
from kazoo_ips.outbound.crossbar import Crossbar
from tests.bus.crossbar import SUCCESS
from tests.bus.events import A

RIGHT, OTHER = "127.0.0.1", "127.0.0.2"


def certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """Create a self-signed certificate for an address; return its file and that of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, key_file = folder / f"{address}.pem", folder / f"{address}.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return file, key_file


class Server:
    """A server with TLS that replies to every request as Crossbar does."""

    def __init__(self, file: Path, key: Path) -> None:
        self.received = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(file, key)

    def __enter__(self) -> "Server":
        self._listener = create_server((RIGHT, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(2)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._serve(client)

    def _serve(self, client: socket) -> None:
        with client, suppress(OSError), self._context.wrap_socket(client, True) as secure:
            self.received += secure.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(SUCCESS)}\r\n\r\n"
            secure.sendall(head.encode() + SUCCESS)
            secure.recv(65536)


@pytest.fixture(params=[RIGHT, OTHER])
def address(request: pytest.FixtureRequest) -> str:
    """The address in the server's certificate."""
    return str(request.param)


@pytest.fixture
def server(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:  # fmt: skip
    """A server whose certificate is trusted."""
    file, key = certificate(tmp_path, address)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with Server(file, key) as made:
        yield made


def broker(port: int) -> Broker:
    """A client of the server."""
    return Broker(
        "test",
        RIGHT,
        port,
        user="guest",
        password="guest",
        virtual_host="/",
        tls=True,
        exchange="configuration",
    )


def test_a_trusted_server_gets_what_is_sent_if_the_name_is_right(
    server: Server, address: str
) -> None:
    crossbar = Crossbar(f"https://{RIGHT}:{server.port}")
    if address == RIGHT:
        assert crossbar.reconcile(A, "token") == 200
        server.received = b""
        with pytest.raises(ReceiverUnavailable) as raised:  # it does not speak AMQP
            broker(server.port).publish([])
        assert "CERTIFICATE" not in str(raised.value)
        assert server.received.startswith(b"AMQP")
    else:
        with pytest.raises(ReceiverUnavailable, match="certificate: "):
            crossbar.reconcile(A, "token")
        with pytest.raises(ReceiverUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            broker(server.port).publish([])
        assert server.received == b""


def test_a_server_with_an_untrusted_certificate_gets_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    for call in (
        lambda: Crossbar(f"https://{RIGHT}:{server.port}").reconcile(A, "token"),
        lambda: broker(server.port).publish([]),
    ):
        with pytest.raises(ReceiverUnavailable, match=r"certificate: |CERTIFICATE_VERIFY_FAILED"):
            call()
    assert server.received == b""
