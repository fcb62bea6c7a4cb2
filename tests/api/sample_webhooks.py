"""The sample webhooks of an account and of the operator, disabled by the service."""

from dataclasses import replace

from embedded import samples
from kazoo_ips.api import examples
from kazoo_ips.app import Instance
from kazoo_ips.couch.client import Couch
from tests.emptying import clear

CONTENT = {"name": "Firewall", "uri": "https://receiver.example/ips", "hook": "all"}
KINDS = ("webhook", "webhook_delivery")


def make_webhooks(services: Instance, couch: Couch, account_id: str) -> None:
    """Replace all webhooks by one of the account and one of the operator."""
    remove_webhooks(couch)
    samples.make_webhooks(services, account_id)
    for owner in (account_id, None):
        webhook = services.webhooks.fetch(owner, examples.WEBHOOK_ID).webhook
        assert services.webhooks._webhooks.put(replace(webhook, disable_reason="gone"))


def remove_webhooks(couch: Couch) -> None:
    """Delete all webhooks and their progress."""
    clear(couch.database("kazoo_ips"), lambda document: document.get("type") in KINDS)
