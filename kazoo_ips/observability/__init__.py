"""Logs, metrics and the context of a request."""
