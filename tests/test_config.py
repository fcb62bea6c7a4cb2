"""With an invalid setting no program starts. It prints one line that names the setting."""

import subprocess
import sys

import pytest

from kazoo_ips.config import BadSetting, Settings

BAD = {
    "KAZOO_IPS_WORKERS": ["0", "-1", "two", "1.5"],
    "KAZOO_IPS_READ_TIMEOUT": ["0", "nan", "inf", "soon"],
    "KAZOO_IPS_WRITE_QUORUM": ["some"],
    "KAZOO_IPS_LOG_LEVEL": ["loud", "INFO "],
    "KAZOO_IPS_LOG_FORMAT": ["xml"],
    "KAZOO_IPS_BIND": ["8000", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:70000", "unix:", "fd://x",
                       "127.0.0.1:8000,", "127.0.0.1:8000,here",
                       "127.0.0.1:80/x"],
    "COUCHDB_URL": ["127.0.0.1:5984", "ftp://127.0.0.1", "http://", "http://admin:pa/ss@host:5984",
                    "http://host:port", "http://\udcff:5984", "http://a:\udcff@host:5984"],
    "COUCHDB_ADMIN_URL": ["http://a:\udcff@host:5984"],
    "KAZOO_IPS_PREFIX": ["\udcff"],
    "KAZOO_IPS_SYSLOG": ["/dev/\udcff"],
    "KAZOO_IPS_METRICS_TOKEN": ["\udcff"],
    "KAZOO_IPS_AMQP_URL": ["127.0.0.1:5672", "http://127.0.0.1", "amqp://", "amqp://u:pa/ss@host",
                           "amqp://host:port", "amqp://host/a/b", "amqp://host/?heartbeat=5",
                           "amqp://host amqp://u:p@host:5672", "amqp://a,amqp:b"],
    "KAZOO_IPS_CROSSBAR_URL": ["127.0.0.1:8000", "ftp://host", "http://u:pa/ss@host",
                               "http://u:p@host", "http://host/?x"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, value) for n in BAD for value in BAD[n]])
def test_an_invalid_setting_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}: ") as raised:
        Settings.load({name: value})
    assert "\n" not in str(raised.value)
    assert "pa/ss" not in str(raised.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("127.0.0.1:5984", "127.0.0.1:5984"),
        ("ftp://127.0.0.1", "ftp://127.0.0.1"),
        ("http://", "http://"),
        ("http://admin:pa/ss@host:5984", "http://***@host:5984"),
        ("http://admin:p@//ss@host:port", "http://***@host:***"),
        ("admin:pass//word@host:5984", "***@host:5984"),
        ("http://admin:pass/word", "http://admin:***"),
    ],
)
@pytest.mark.parametrize("name", ["COUCHDB_URL", "COUCHDB_ADMIN_URL"])
def test_an_invalid_url_is_shown_without_its_password(name: str, value: str, shown: str) -> None:
    with pytest.raises(BadSetting) as raised:
        Settings.load({name: value})
    assert str(raised.value) == (
        f"{name}: '{shown}' is not of the form http://user:password@host:5984,"
        " with / : @ in the password percent-encoded"
    )


@pytest.mark.parametrize(
    "bind", ["127.0.0.1:8000", "[::]:8000", "[::1]:0", "host:80", "unix:/run/x.sock", "fd://3"]
)
def test_every_listen_address_of_gunicorn_is_accepted(bind: str) -> None:
    assert Settings.load({"KAZOO_IPS_BIND": bind}).bind == bind


@pytest.mark.parametrize(
    ("unknown", "similar"),
    [("KAZOO_IPS_WORKER", "KAZOO_IPS_WORKERS"), ("KAZOO_IPS_COUCHDB_URL", "COUCHDB_URL")],
)
def test_an_unknown_setting_is_reported_with_a_similar_name(unknown: str, similar: str) -> None:
    with pytest.raises(BadSetting) as raised:
        Settings.load({unknown: "8", "PATH": "/bin"})
    assert str(raised.value) == f"{unknown}: no such setting; did you mean {similar}?"
    with pytest.raises(BadSetting, match=r"^KAZOO_IPS_ZZZZ: no such setting$"):
        Settings.load({"KAZOO_IPS_ZZZZ": ""})


def test_brokers_are_named_without_user_and_password() -> None:
    text = "amqp://u:p%2F@a, amqps://b:1/kazoo  amqp://[::1]/%2f"
    brokers = Settings.load({"KAZOO_IPS_AMQP_URL": text}).brokers()
    assert [broker.label for broker in brokers] == ["a:5672", "b:1/kazoo", "[::1]:5672"]
    assert [broker.virtual_host for broker in brokers] == ["/", "kazoo", "/"]
    assert [broker.tls for broker in brokers] == [False, True, False]
    assert [broker.host for broker in brokers] == ["a", "b", "::1"]
    assert [broker.password for broker in brokers] == ["p/", "guest", "guest"]
    assert "p/" not in repr(brokers)
    assert Settings().brokers() == []


def test_settings_of_make_run_and_make_deploy_are_accepted() -> None:
    assert Settings.load({"KAZOO_IPS_DATA": "data", "KAZOO_IPS_ROOT": "/srv"}) == Settings()


GUNICORN = ["-m", "gunicorn", "-c", "python:kazoo_ips.gunicorn_conf"]
COMMAND = ["-c", "from kazoo_ips.cli import main; main()", "summary"]


@pytest.mark.parametrize(
    ("command", "name", "value"),
    [
        (GUNICORN, "KAZOO_IPS_THREADS", "0"),
        (GUNICORN, "KAZOO_IPS_THREAD", "8"),
        (COMMAND, "KAZOO_IPS_BIND", "here"),
    ],
)
def test_no_program_starts_with_an_invalid_setting(
    command: list[str], name: str, value: str
) -> None:
    result = subprocess.run(
        [sys.executable, *command],
        env={name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"{name}: ")
