"""The service answers no request, argument or setting with the text of a Python exception."""

import codecs
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st
from webtest import TestApp

from kazoo_ips import app as composition
from kazoo_ips import cli, error_texts
from kazoo_ips.config import BadSetting, Settings
from kazoo_ips.server import release_switch, settings_file
from tests import strategies
from tests.strategies import runs

PYTHONS = re.compile(
    r"codec can't|surrogates not allowed|unexpected end of data|invalid (start|continuation) byte"
    r"|recursion|set_int_max_str_digits|integer string conversion|Errno|Traceback|NoneType"
    r"|Expecting |Extra data|Unterminated|Invalid control character|Invalid \\|Invalid \\\\"
    r"|out of range float|JSON compliant|could not convert|invalid literal|has host bits"
    r"|does not appear to be|not permitted in|expected after|field larger|new-line character"
    r"|embedded null|getaddrinfo|must be 0-65535|object has no|object is not|[a-z]Error\b"
    r"|not a valid port number|Error \d+ while decompressing|incorrect header check",
    re.IGNORECASE,
)
"""Parts of the texts of exceptions of Python and of its libraries."""


def assert_no_text_of_an_exception(output: str) -> None:
    """Check that an output has no text of a Python exception."""
    found = PYTHONS.search(output)
    assert found is None, f"{found and found[0]!r} in {output[:2000]}"


def test_the_texts_of_pythons_exceptions_are_recognised() -> None:
    def fail(do: Callable[[], object]) -> str:
        try:
            do()
        except (OSError, ValueError, RecursionError, OverflowError) as error:
            return str(error)
        raise AssertionError

    causes: list[Callable[[], object]] = [
        b"\xff".decode,
        b"\xc3".decode,
        "\ud800".encode,
        lambda: json.loads("{"),
        lambda: json.loads('{"a" 1}'),
        lambda: json.loads("1 1"),
        lambda: json.loads('"'),
        lambda: json.loads('"\n"'),
        lambda: json.loads('"\\x"'),
        lambda: json.loads("[" * 100_000),
        lambda: json.loads("9" * 5000),
        lambda: json.dumps(float("inf"), allow_nan=False),
        lambda: int("x"),
        lambda: float("x"),
        lambda: Path("/nonexistent").read_text(),
        lambda: Path("\0").read_text(),
        lambda: socket.getaddrinfo("127.0.0.1", "nonsense"),
        lambda: __import__("ipaddress").ip_network("x"),
        lambda: __import__("ipaddress").ip_network("192.0.2.1/24"),
    ]
    for cause in causes:
        assert PYTHONS.search(fail(cause)), fail(cause)


# Invalid bytes and texts

bad_json = st.one_of(
    st.binary(max_size=40),
    st.text(max_size=40).map(str.encode),
    st.sampled_from(
        [
            b"{", b'{"data":', b'{"data" 1}', b'"', b'"\n"', b'"\\x"', b"1 1", b"[" * 100_000,
            b'{"a":' * 5000, b"9" * 5000, b'{"data":{"n":' + b"9" * 5000 + b"}}", b"NaN", b"1e999",
            b'{"data":{"ip":"\\ud800"}}', b'{"data":"\xff"}', b"\xff\xfe{\0}\0",
            codecs.BOM_UTF8 * 2 + b"{}", codecs.BOM_UTF16_LE, b"\0",
        ]
    ),
)  # fmt: skip
values = st.one_of(
    strategies.near_addresses(),
    st.text(max_size=20),
    st.sampled_from(
        ["\ud800", "9" * 5000, "\0", "[" * 5000, "1/24", "1-2", "::/0", "%", "\udcff"]
    ),
)
lists = st.one_of(
    st.lists(st.binary(max_size=40), max_size=4).map(b"\n".join),
    st.lists(st.text(max_size=30), max_size=4).map(lambda rows: "\n".join(rows).encode("utf-16")),
    st.lists(values, min_size=1, max_size=4).map(
        lambda cells: b"ip,zone,host\n" + ",".join(cells).encode(errors="surrogatepass")
    ),
    st.sampled_from(
        [
            b'ip,zone,host\n"', b'ip,zone,host\n"a"b,c,d', b"ip,zone,host\na\rb,\"c,d",
            b"ip,zone,host\n\xff,z,h", b"ip,zone,host\n192.0.2.1,\0,h", b'"', b'"a"b,"\r",c',
            b"\xff\xfe\x00", b"\xff\xfe\x00\xd8\x0a\x00", b"\xfe\xff\x0a", b"PK\x03\x04",
            b"9" * 5000 + b"/1,z,h", b"192.0.2.0/" + b"9" * 5000 + b",z,h",
            "192.0.2.0/\u0661,z,h".encode(), b"1/2/3,z,h", b"1-2-3,z,h",
        ]
    ),
)  # fmt: skip


# Every way into the service


@given(body=bad_json, coding=st.sampled_from(["", "gzip"]))
@runs(60)
def test_no_body_is_answered_with_the_text_of_an_exception(
    api: TestApp, operator: Any, body: bytes, coding: str
) -> None:
    for path, headers in (("/v2/ips", operator.headers), ("/v2/user_auth", {})):
        more = {"Content-Encoding": coding} if coding else {}
        reply = api.request(
            path, method="PUT", body=body, headers={**headers, **more}, status="4*"
        )
        assert_no_text_of_an_exception(reply.text)


@given(value=values)
@runs(40)
def test_no_value_is_answered_with_the_text_of_an_exception(
    api: TestApp, operator: Any, value: str
) -> None:
    assert isinstance(value, str)
    headers = operator.headers
    data = {"ip": value, "zone": value, "host": value}
    for body in ({"data": data}, {"data": {"ips": [data]}}, {"data": {"quantity": value}}):
        reply = api.put_json("/v2/ips", body, headers=headers, status="*")
        assert_no_text_of_an_exception(_without(reply.text, value))
    for path in ("ips", f"accounts/{operator.id}/ips"):
        for name in ("page_size", "start_key", "quantity", "paginate", "dry_run"):
            query = {name: value.encode(errors="replace")}
            reply = api.get(f"/v2/{path}", query, headers=headers, status="*")
            assert_no_text_of_an_exception(_without(reply.text, value))


def _without(text: str, value: str) -> str:
    """A reply without the input that it quotes."""
    return text.replace(json.dumps(value)[1:-1], "").replace(value, "") if value else text


@given(content=lists)
@runs(60)
@pytest.mark.usefixtures("pool")
def test_no_list_is_answered_with_the_text_of_an_exception(
    environment: dict[str, str], content: bytes
) -> None:
    result = CliRunner(env=environment).invoke(
        cli.cli, ["add", "--dry-run", "--from", "-"], input=content
    )
    assert result.exit_code in {0, 1}
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert_no_text_of_an_exception(result.output)


COMMANDS = [
    ["add", "{}", "z", "h"],
    ["add", "192.0.2.1", "{}", "h"],
    ["add", "--dry-run", "{}", "z", "{}"],
    ["assign", "{}", "{account}"],
    ["assign", "192.0.2.1", "{}"],
    ["release", "{}"],
    ["release", "--account", "{}"],
    ["delete", "{}"],
    ["summary", "{}"],
    ["account", "show", "{}"],
    ["account", "enable", "{}"],
]


@given(value=values, command=st.sampled_from(COMMANDS))
@runs(60)
@pytest.mark.usefixtures("pool")
def test_no_argument_is_answered_with_the_text_of_an_exception(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    operator: Any,
    value: str,
    command: list[str],
) -> None:
    arguments = ["--", *(part.format(value, account=operator.id) for part in command[1:])]
    options = [part for part in arguments if part.startswith("--") and part in command]
    rest = [part for part in arguments if part not in options and part != "--"]
    with _environment(monkeypatch, environment):
        result = _run([command[0], *options, "--", *rest])
    assert_no_text_of_an_exception(result.replace(value, "") if value else result)


@contextmanager
def _environment(patch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[None]:
    with patch.context() as context:
        for name in ("COUCHDB_URL", "KAZOO_IPS_PREFIX"):
            context.setenv(name, environment[name])
        yield


def _run(arguments: list[str]) -> str:
    """Return the output of a command, run by its entry point."""

    def entry() -> None:
        cli.run(lambda: cli.cli.main(arguments))

    result = CliRunner().invoke(_as_command(entry))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(
        result.exception
    )
    return result.output


def _as_command(do: Callable[[], None]) -> Any:
    import click  # noqa: PLC0415

    return click.Command("command", callback=do)


SETTINGS = [
    "COUCHDB_URL", "COUCHDB_ADMIN_URL", "KAZOO_IPS_BIND", "KAZOO_IPS_WORKERS",
    "KAZOO_IPS_READ_TIMEOUT", "KAZOO_IPS_TRUSTED_PROXIES", "KAZOO_IPS_WRITE_QUORUM",
]  # fmt: skip


@given(name=st.sampled_from(SETTINGS), value=values)
@example(name="KAZOO_IPS_TRUSTED_PROXIES", value="192.0.2.1/24")
@runs(100)
def test_no_setting_is_answered_with_the_text_of_an_exception(name: str, value: str) -> None:
    try:
        Settings.load({name: value})
    except BadSetting as error:
        assert_no_text_of_an_exception(str(error).replace(repr(value), ""))


@given(
    content=st.one_of(
        st.binary(max_size=60), values.map(lambda v: f"A={v}".encode("utf-8", "replace"))
    )
)
@runs(60)
def test_no_file_of_settings_is_answered_with_the_text_of_an_exception(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("settings") / "file"
    file.write_bytes(content)
    for path in (file, file.parent, file / "x", file.parent / "none", Path("\0"), Path("x" * 300)):
        try:
            settings_file.read(path)
        except BadSetting as error:
            assert_no_text_of_an_exception(str(error))
    for command in ([], ["/nonexistent"], [str(file.parent)], [str(file)], ["\0"]):
        with pytest.raises(SystemExit) as ended:
            settings_file.main([str(file), *command])
        assert_no_text_of_an_exception(str(ended.value.code))


@given(bind=values)
@example(bind="192.0.2.1:80")
@example(bind="no.such.host.invalid:80")
@example(bind="127.0.0.1:70000")
@example(bind="unix:/tmp/x")
@runs(40)
def test_no_listen_address_of_the_supervisor_is_answered_with_the_text_of_an_exception(
    tmp_path_factory: pytest.TempPathFactory, bind: str
) -> None:
    folder = tmp_path_factory.mktemp("run")
    supervisor = release_switch.Supervisor(folder, folder / "settings", folder)
    try:
        supervisor._listen([bind])
    except BadSetting as error:
        assert_no_text_of_an_exception(str(error).replace(bind, ""))
    finally:
        supervisor._close_all_but([])


def test_errors_of_the_operating_system_are_shown_with_its_text() -> None:
    assert error_texts.of_os_error(FileNotFoundError(2, "No such", "x")) == (
        "No such file or directory"
    )
    assert error_texts.of_os_error(TimeoutError()) == "no answer in time"
    assert error_texts.of_os_error(socket.gaierror(-2, "unknown")) == "the host name is unknown"
    assert error_texts.of_os_error(ValueError("embedded null byte")) == "it cannot be used"


def test_an_unreachable_database_is_not_logged_with_the_text_of_an_exception(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    couch = composition.connect(Settings(couchdb_url=f"http://127.0.0.1:{port}"))
    with pytest.raises(Exception, match="Connection refused") as raised:
        couch.version()
    assert_no_text_of_an_exception(f"{raised.value} {caplog.text}")
