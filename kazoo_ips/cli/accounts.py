"""The account tree, where no Kazoo keeps it."""

import sys
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import click

from kazoo_ips.cli.console import administrator, print_json, reported, services
from kazoo_ips.model import Account
from kazoo_ips.repositories.accounts import account_database


@click.group()
def account() -> None:
    """Manage the account tree."""


@account.command("create")
@click.argument("name")
@click.option("--realm", required=True, help="The account's SIP realm; no two have the same.")
@click.option("--parent", help="Id of the account above; the operator's if not given.")
@click.option("--json", "as_json", is_flag=True, help="Print the account as JSON.")
def create_account(name: str, realm: str, parent: str | None, as_json: bool) -> None:
    """Make an account; the first one is the operator."""
    with reported(f"failed to create '{name}'"):
        made = administrator().accounts.create(name, realm, parent)
    if as_json:
        print_json(_shown(made))
    else:
        print_created(made)


@account.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the accounts as JSON.")
def list_accounts(as_json: bool) -> None:
    """Show all accounts."""
    with reported("unable to list accounts"):
        accounts = services().accounts.list()
    if as_json:
        print_json([_shown(a) for a in accounts])
        return
    for each in accounts:
        marks = [*(["operator"] if each.operator else []), *([] if each.enabled else ["disabled"])]
        click.echo(" ".join([each.id, each.realm, each.name, *marks]))


@account.command("show")
@click.argument("account_id")
def show_account(account_id: str) -> None:
    """Show an account, its API key included, as JSON."""
    with reported("unable to find account"):
        print_json(_shown(services().accounts.fetch(account_id)))


@account.command("enable")
@click.argument("account_id")
def enable_account(account_id: str) -> None:
    """Let an account's logins and tokens work again."""
    with reported("unable to enable account"):
        services().accounts.set_enabled(account_id, True)
    click.echo(f"enabled account {account_id}")


@account.command("disable")
@click.argument("account_id")
def disable_account(account_id: str) -> None:
    """Stop an account's logins and tokens."""
    with reported("unable to disable account"):
        services().accounts.set_enabled(account_id, False)
    click.echo(f"disabled account {account_id}")


@click.group()
def user() -> None:
    """Manage the users of accounts."""


@user.command("create")
@click.argument("account_id")
@click.argument("username")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--json", "as_json", is_flag=True, help="Print the user as JSON.")
def create_user(account_id: str, username: str, password_stdin: bool, as_json: bool) -> None:
    """Add an admin user to an account; asks for the password."""
    password = (
        sys.stdin.readline().rstrip("\n")
        if password_stdin
        else click.prompt("Password", hide_input=True, confirmation_prompt=True)
    )
    with reported(f"failed to create '{username}'"):
        made = services().accounts.create_user(account_id, username, password)
    if as_json:
        print_json({"id": made.id, "account_id": account_id, "username": made.username})
    else:
        click.echo(f"created new account admin user '{made.id}'")


@user.command("disable")
@click.argument("account_id")
@click.argument("username")
def disable_user(account_id: str, username: str) -> None:
    """Stop a user's logins and tokens."""
    with reported("unable to disable user"):
        services().accounts.disable_user(account_id, username)
    click.echo(f"disabled user {username}")


def _shown(account: Account) -> dict[str, Any]:
    return {k: v for k, v in asdict(account).items() if k != "signature_secret"}


def print_created(account: Account) -> None:
    """Print Kazoo's lines about a new account."""
    database = quote(account_database(account.id), safe="")
    click.echo(f"created new account '{account.id}' in db '{database}'")
    if account.operator:
        click.echo("updated master account id in system_config.accounts")
