"""`make bench`: how fast the service is, beside what CouchDB and Flask allow on the same machine.

Nothing timed here is ever a test. `bench/README.md` says how each figure is made.
"""


class BenchError(Exception):
    """Something cannot be measured; the message is one line."""
