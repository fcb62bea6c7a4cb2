"""Adapters to systems that get events: Kazoo's bus, Crossbar, receivers of webhooks."""
