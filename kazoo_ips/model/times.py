"""Kazoo's times: Gregorian seconds."""

GREGORIAN_EPOCH = 62_167_219_200
"""Seconds from the year 0, the epoch of Erlang's and Kazoo's times, to 1970, the epoch of Unix."""
