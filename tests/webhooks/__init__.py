"""Tests of webhooks: destinations, the HTTP sender, deliveries, the sender, whole processes."""
