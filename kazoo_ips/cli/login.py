"""The commands `login`, `logout` and `profiles`: services at URLs, and tokens for them."""

import hashlib
import ipaddress
import json
import sys
from contextlib import suppress
from urllib.parse import urlsplit

import click

from kazoo_ips.cli import profiles
from kazoo_ips.cli.console import fail, is_utf_8, json_lines_option, json_option, say
from kazoo_ips.cli.target import options
from kazoo_ips.config import BadSetting
from kazoo_ips.errors import InvalidCredentials
from kazoo_ips.remote.client import APIClient, Service, service_url
from kazoo_ips.remote.replies import Reply


@click.command()
@click.option("--url", help="The URL of the service: https://host.")
@click.option("--profile", help="The name of the profile; `default` without it.")
@click.option("--account", help="The realm or the name of the account.")
@click.option("--username", help="The name of the user.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--ca-file", type=click.Path(), help="A file of certificates to trust.")
@json_option
def login(  # noqa: PLR0913, PLR0917 - each is one option
    url: str | None,
    profile: str | None,
    account: str | None,
    username: str | None,
    password_stdin: bool,
    ca_file: str | None,
    as_json: bool,
) -> None:
    """Get a token from a service, and keep it in a profile.

    The command prompts for values that no option has. The token is kept in a file that only you
    can read. It is valid for an hour, unless the service is set up otherwise.
    """
    given = options()
    name = profile or given.profile or profiles.DEFAULT
    profiles.check_name(name)
    kept = profiles.load().get(name, profiles.Profile(""))
    address = _url(url or given.url or kept.url or click.prompt("URL of the service"))
    trusted = ca_file or given.ca_file or (kept.ca_file if address == kept.url else "")
    client = APIClient(Service(address, ca_file=trusted or None))
    if urlsplit(address).scheme == "http" and not _is_loopback(address):
        say(f"{address} is not encrypted: others can read the password and the token", err=True)
    account = account or click.prompt("Account (realm or name)", default=kept.account or None)
    username = username or click.prompt("User")
    password = _password(from_stdin=password_stdin)
    reply = _log_in(client, account, username, password)
    data = reply.data
    made = profiles.Profile(
        address, reply.body["auth_token"], data["account_name"], data["account_id"], trusted or ""
    )
    profiles.save(name, made)
    if as_json:
        say(json.dumps(_shown(name, made)))
        return
    say(f"logged in to {address} as {username} of {made.account} {made.account_id}")
    if name != profiles.DEFAULT:
        say(f"use it with --profile {name}")


def _url(given: str) -> str:
    try:
        return service_url(given)
    except ValueError as error:
        raise BadSetting(str(error)) from error


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        line = sys.stdin.buffer.readline().decode(errors="surrogateescape")
        password = line.rstrip("\n")
    else:
        password = str(click.prompt("Password", hide_input=True))
    if not is_utf_8(password):
        fail("the password is not UTF-8")
    return password


def _log_in(client: APIClient, account: str, username: str, password: str) -> Reply:
    """Log in with the realm of an account, or else with its name."""
    credentials = hashlib.md5(f"{username}:{password}".encode()).hexdigest()
    kinds = ["account_realm", "account_name"] if "." in account else ["account_name"]
    reply = None
    for kind in kinds:
        with suppress(InvalidCredentials):
            reply = reply or client.log_in({"credentials": credentials, kind: account})
    return reply or fail("the service refuses the account, the user or the password")


@click.command()
@click.option("--profile", help="The name of the profile; `default` without it.")
@json_option
def logout(profile: str | None, as_json: bool) -> None:
    """Remove a profile with its token.

    The token itself stays valid until it expires.
    """
    name = profile or options().profile or profiles.DEFAULT
    if not profiles.remove(name):
        fail(f"there is no profile {name}")
    if as_json:
        say(json.dumps({"profile": name, "removed": True}))
    else:
        say(f"removed the profile {name}")


@click.command("profiles")
@json_lines_option
def list_profiles(as_json: bool) -> None:
    """Show the profiles, without their tokens."""
    for name, profile in profiles.load().items():
        shown = _shown(name, profile)
        say(json.dumps(shown) if as_json else " ".join(filter(None, shown.values())))


def _shown(name: str, profile: profiles.Profile) -> dict[str, str]:
    """Return what is shown of a profile, without its token."""
    return {
        "profile": name,
        "url": profile.url,
        "account_id": profile.account_id,
        "account_name": profile.account,
    }
