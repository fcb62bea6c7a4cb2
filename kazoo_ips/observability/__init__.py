"""Logs, metrics and the request context."""
