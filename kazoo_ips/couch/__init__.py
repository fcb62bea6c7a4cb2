"""The CouchDB adapter: the only package that imports the driver."""

import sys


def _load_driver() -> None:
    """Import couchdb-python without `pkg_resources`, which takes a third of the start time.

    If setuptools is installed, the driver uses `pkg_resources` to find its own version. If that
    import fails, the driver works without it.
    """
    if "pkg_resources" in sys.modules:
        return
    sys.modules["pkg_resources"] = None  # type: ignore[assignment]
    try:
        import couchdb  # noqa: F401, PLC0415 - while `pkg_resources` cannot be imported
    finally:
        del sys.modules["pkg_resources"]


_load_driver()
