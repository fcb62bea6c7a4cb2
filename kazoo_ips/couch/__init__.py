"""CouchDB from Python: the driver on a short lead, and design documents from files."""

import sys


def _load_driver() -> None:
    """Import couchdb-python without `pkg_resources`, a third of all the time that a start takes.

    The driver asks it for its own version where setuptools is installed, and does without it
    where it is not.
    """
    if "pkg_resources" in sys.modules:
        return
    sys.modules["pkg_resources"] = None  # type: ignore[assignment]
    try:
        import couchdb  # noqa: F401, PLC0415 - while it cannot be found
    finally:
        del sys.modules["pkg_resources"]


_load_driver()
