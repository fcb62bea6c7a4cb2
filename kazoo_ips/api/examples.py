"""Values of the examples in the OpenAPI description: those of the sample data of `make run`.

So each example request succeeds on a fresh sample pool. A test sends them all.
"""

ACCOUNT_ID = "4b1ae50f5b2c4c0d9a6a0f2f3a9c7b1e"
"""The sample account that has addresses. `embedded/samples.py` creates it with this id."""

ZONE, HOST = "us-east", "proxy1.us-east.example.com"
ASSIGNED = ["192.0.2.1", "203.0.113.1"]
"""Addresses of the sample account."""

AVAILABLE = ["192.0.2.2", "192.0.2.3"]
NEW = ["192.0.2.21", "192.0.2.22"]
"""Addresses that the sample pool does not have."""
