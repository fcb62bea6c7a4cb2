"""`make bench`: how fast the service is, compared with CouchDB and Flask on the same machine.

No test depends on these times. `bench/README.md` says how each figure is measured.
"""


class BenchError(Exception):
    """A row cannot be measured. The message is one line."""
