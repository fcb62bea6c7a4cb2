"""Shell completion: the command `completion`, and what arguments are completed with.

Names and addresses come from the service or from CouchDB, if it answers within a second or two.
Otherwise nothing is suggested.
"""

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import click
from click.shell_completion import get_completion_class

from kazoo_ips import app
from kazoo_ips.cli import target
from kazoo_ips.cli.backend import Backend
from kazoo_ips.config import Settings
from kazoo_ips.model import ListIPs, addresses
from kazoo_ips.remote import services as remote

SHELLS = ("bash", "zsh", "fish")
_TIMEOUT = (0.5, 2.0)
"""Seconds that a completion waits for a connection, and for a response."""
_SUGGESTIONS = 100
"""Maximum number of addresses to suggest."""
_READ = 1000
"""Maximum number of addresses and accounts to read."""
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    \b
    bash: eval "$(kazoo-ips completion bash)"     in ~/.bashrc
    zsh:  eval "$(kazoo-ips completion zsh)"      in ~/.zshrc, after compinit
    fish: kazoo-ips completion fish | source      in ~/.config/fish/config.fish
    """
    context = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.command, {}, "kazoo-ips", "_KAZOO_IPS_COMPLETE").source())


def _quick() -> Backend:
    """Return the services, with short timeouts and without work in the background."""
    service = target.chosen()
    if service:
        return remote.connect(service, timeout=_TIMEOUT, tries=1)
    connect, read = _TIMEOUT
    settings = replace(Settings.load(os.environ), connect_timeout=connect, read_timeout=read)
    return app.build(settings)


def _suggested(read: Callable[[Backend, str], Iterable[str]]) -> Complete:
    """Return the function that click calls for suggestions.

    :param read: returns candidates, of which those that do not fit are left out
    """

    def complete(context: click.Context, _parameter: click.Parameter, given: str) -> list[str]:
        with suppress(Exception), context.scope(cleanup=False):
            fitting = (each for each in read(_quick(), given) if each.startswith(given))
            return list(islice(dict.fromkeys(fitting), _SUGGESTIONS))
        return []

    return complete


def _addresses(services: Backend, given: str) -> Iterable[str]:
    query = ListIPs(between=_range(given))
    return (line.address for line in islice(services.lists.lines(query), _READ))


def _range(given: str) -> tuple[str, str] | None:
    """Return the range of sort keys of the IPv4 addresses that begin with whole numbers."""
    numbers = given.split(".")[:-1]
    if not numbers or len(numbers) > 3:
        return None
    whole = ".".join(numbers + ["0"] * (4 - len(numbers)))
    with suppress(ValueError):
        return addresses.parse_network(f"{whole}/{8 * len(numbers)}").sort_keys
    return None


def _accounts(services: Backend, given: str) -> Iterable[str]:
    found = services.accounts.page(_READ).items
    names = (name for each in found for name in (each.realm, each.name, each.id))
    return (name for name in names if not re.search(r"\s", name))  # shells split at blanks


zones = _suggested(lambda services, _given: services.lists.zones())
hosts = _suggested(lambda services, _given: services.lists.hosts())
ips = _suggested(_addresses)
accounts = _suggested(_accounts)
ips_or_accounts = _suggested(
    lambda services, given: [*_addresses(services, given), *_accounts(services, given)]
)
