"""The command `sup`: commands for addresses and accounts, under their names on a Kazoo node."""

import sys
from collections.abc import Sequence

from kazoo_ips.cli.accounts import print_created
from kazoo_ips.cli.console import administrator, fail, reported, say
from kazoo_ips.cli.maintenance import refresh
from kazoo_ips.cli.pool import add_one, assign, delete, release
from kazoo_ips.cli.summaries import kazoo_summary

_CREATE_ACCOUNT = "create_account <name> <realm> <user> <password>"
_SUP = {
    "kazoo_ips_maintenance": {
        "add": (add_one, "add <ip> <zone> <host>", (3,)),
        "assign": (assign, "assign <ip> <account>", (2,)),
        "release": (release, "release <ip>", (1,)),
        "delete": (delete, "delete <ip>", (1,)),
        "summary": (kazoo_summary, "summary [host]", (0, 1)),
        "refresh": (refresh, "refresh", (0,)),
    },
}


def sup_main(arguments: Sequence[str]) -> None:
    """Run `sup <module> <function> <argument>…`, as on a Kazoo node."""
    module, function, *rest = [*arguments, "", ""][: max(2, len(arguments))]
    if (module, function) == ("crossbar_maintenance", "create_account"):
        if len(rest) != 4:
            fail(f"Please use: sup {module} {_CREATE_ACCOUNT}")
        _create_account_and_user(*rest)
        return
    if function not in _SUP.get(module, {}):
        usages = [
            f"  sup {name} {usage}"
            for name, functions in _SUP.items()
            for _, usage, _ in functions.values()
        ]
        usages.append(f"  sup crossbar_maintenance {_CREATE_ACCOUNT}")
        is_error = function not in ("", "--help", "-h") or module not in ("", "--help", "-h")
        say("Please use:", *usages, err=is_error)
        sys.exit(1 if is_error else 0)
    command, usage, counts = _SUP[module][function]
    if len(rest) not in counts:
        fail(f"Please use: sup {module} {usage}")
    command.main(["--", *rest], prog_name=f"sup {module} {function}", standalone_mode=False)


def _create_account_and_user(name: str, realm: str, username: str, password: str) -> None:
    accounts = administrator().accounts
    with reported(f"failed to create '{name}'"):
        created = accounts.create(name, realm)
        print_created(created)
        admin = accounts.create_user(created.id, username, password)
    say(f"created new account admin user '{admin.id}'")
