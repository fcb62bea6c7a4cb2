"""The commands `account` and `user`, for installations without Kazoo."""

import sys
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import click

from kazoo_ips.cli import completion
from kazoo_ips.cli.account_names import account_id, existing
from kazoo_ips.cli.console import (
    Group,
    administrator,
    backend,
    fail,
    is_utf_8,
    json_option,
    print_json,
    reported,
    say,
    services,
)
from kazoo_ips.model import Account
from kazoo_ips.repositories.accounts import account_database


@click.group(cls=Group)
def account() -> None:
    """Manage the account tree."""


@account.command("create")
@click.argument("name")
@click.option("--realm", required=True, help="The account's SIP realm, which is unique.")
@click.option("--parent", help="Parent account: id, realm or name; by default the operator.")
@json_option
def create_account(name: str, realm: str, parent: str | None, as_json: bool) -> None:
    """Create an account. The first account is the operator."""
    instance, failure = administrator(), f"failed to create '{name}'"
    parent_id = account_id(instance, parent, failure) if parent else None
    with reported(failure):
        created = instance.accounts.create(name, realm, parent_id)
    if as_json:
        print_json(_as_json(created))
    else:
        print_created(created)


@account.command("list")
@json_option
def list_accounts(as_json: bool) -> None:
    """Show all accounts."""
    with reported("unable to list accounts"):
        accounts = backend().accounts.list()
    if as_json:
        print_json([_without_secrets(a) for a in accounts])
        return
    for each in accounts:
        flags = [*(["operator"] if each.operator else []), *([] if each.enabled else ["disabled"])]
        say(" ".join([each.id, each.realm, each.name, *flags]))


@account.command("show")
@click.argument("account", shell_complete=completion.accounts)
def show_account(account: str) -> None:
    """Show an account with its API key, as JSON."""
    print_json(_as_json(existing(services(), account, "unable to find account")))


@account.command("enable")
@click.argument("account", shell_complete=completion.accounts)
@json_option
def enable_account(account: str, as_json: bool) -> None:
    """Enable an account: its logins and tokens work again."""
    _set_enabled(account, enabled=True, as_json=as_json)


@account.command("disable")
@click.argument("account", shell_complete=completion.accounts)
@json_option
def disable_account(account: str, as_json: bool) -> None:
    """Disable an account: its logins and tokens are refused."""
    _set_enabled(account, enabled=False, as_json=as_json)


def _set_enabled(given: str, *, enabled: bool, as_json: bool) -> None:
    verb, instance = "enable" if enabled else "disable", services()
    chosen = account_id(instance, given, f"unable to {verb} account")
    with reported(f"unable to {verb} account"):
        instance.accounts.set_enabled(chosen, enabled)
    if as_json:
        print_json({"id": chosen, "enabled": enabled})
    else:
        say(f"{verb}d account {chosen}")


@click.group(cls=Group)
def user() -> None:
    """Manage the users of accounts."""


@user.command("create")
@click.argument("account", shell_complete=completion.accounts)
@click.argument("username")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@json_option
def create_user(account: str, username: str, password_stdin: bool, as_json: bool) -> None:
    """Create an admin user of an account. The command asks for the password."""
    instance, failure = services(), f"failed to create '{username}'"
    if password_stdin:
        line = sys.stdin.buffer.readline().decode(errors="surrogateescape")
        password = line.rstrip("\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    if not is_utf_8(password):
        fail(f"{failure}: the password is not UTF-8")
    chosen = account_id(instance, account, failure)
    with reported(failure):
        created = instance.accounts.create_user(chosen, username, password)
    if as_json:
        print_json({"id": created.id, "account_id": chosen, "username": created.username})
    else:
        say(f"created new account admin user '{created.id}'")


@user.command("disable")
@click.argument("account", shell_complete=completion.accounts)
@click.argument("username")
@json_option
def disable_user(account: str, username: str, as_json: bool) -> None:
    """Disable a user: its logins and tokens are refused."""
    instance, failure = services(), "unable to disable user"
    chosen = account_id(instance, account, failure)
    with reported(failure):
        instance.accounts.disable_user(chosen, username)
    if as_json:
        print_json({"account_id": chosen, "username": username, "enabled": False})
    else:
        say(f"disabled user {username}")


def _as_json(account: Account) -> dict[str, Any]:
    return {**_without_secrets(account), "api_key": account.api_key}


def _without_secrets(account: Account) -> dict[str, Any]:
    secrets = ("api_key", "signature_secret")
    return {k: v for k, v in asdict(account).items() if k not in secrets}


def print_created(account: Account) -> None:
    """Print the lines that Kazoo prints for a new account."""
    database = quote(account_database(account.id), safe="")
    say(f"created new account '{account.id}' in db '{database}'")
    if account.operator:
        say("updated master account id in system_config.accounts")
