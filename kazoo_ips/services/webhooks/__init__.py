"""Webhooks: their management, what each receiver may see, and the delivery of events."""
