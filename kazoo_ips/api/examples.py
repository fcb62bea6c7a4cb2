"""Values of the examples in the OpenAPI description: those of the sample data of `make run`.

So each example request succeeds on a fresh sample pool. A test sends them all.
"""

import time

ACCOUNT_ID = "4b1ae50f5b2c4c0d9a6a0f2f3a9c7b1e"
"""The sample account that has addresses. `embedded/samples.py` creates it with this id."""

OTHER_ACCOUNT_ID = "9c6f1d0a7e8b4f53a2d4c1b0e7f6a5d8"
"""The first of the sample accounts that `embedded/past.py` creates."""

YEAR = str(time.gmtime().tm_year)
"""A year of which the history has a database."""
ZONE, HOST = "us-east", "proxy1.us-east.example.com"
OTHER_HOST = "proxy2.us-east.example.com"
ASSIGNED = ["192.0.2.1", "203.0.113.1"]
"""Addresses of the sample account."""

AVAILABLE = ["192.0.2.2", "192.0.2.3"]
NEW = ["192.0.2.21", "192.0.2.22"]
"""Addresses that the sample pool does not have."""
LABEL = ("carrier", "example")
"""The name and the value of a label of the first assigned address."""
RESERVATION_ID, JOB_ID = "0" * 32, "1" * 32
"""Placeholders for the ids that a client gets when it creates a reservation and a job."""
WEBHOOK_ID = "af2bdbe1aa9b6ec1e2ade1d694f41fc7"
"""The id of a webhook of the sample account, and of one of the operator: `embedded/samples.py`."""
