"""A server with CouchDB's protocol that needs no installation, for a first look and for tests.

The service uses it by its URL, like any CouchDB.
"""

from embedded.server import EmbeddedCouch, EmbeddedError

__all__ = ["EmbeddedCouch", "EmbeddedError"]
