"""Assigning, allocating and releasing addresses."""
