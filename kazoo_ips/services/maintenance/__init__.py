"""Operators' tools: the doctor, health checks, access to the databases."""
