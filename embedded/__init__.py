"""A CouchDB-protocol server that needs no installation, for first steps and for tests.

The service does not know it: to the service it is a URL like any other.
"""

from embedded.server import EmbeddedCouch, EmbeddedError

__all__ = ["EmbeddedCouch", "EmbeddedError"]
