"""Adapters to systems that are told of changes: Kazoo's bus, Crossbar, receivers of webhooks."""
