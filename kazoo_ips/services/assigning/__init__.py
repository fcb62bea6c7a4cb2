"""Addresses assigned to accounts, allocated and released."""
