"""An error of the API is raised again as the error that the service raised."""

import pytest

from kazoo_ips import errors
from kazoo_ips.api.errors import REPLIES
from kazoo_ips.remote.replies import Reply


@pytest.mark.parametrize(
    "error",
    [
        errors.ReservationLimitReached(100, 100),
        errors.WebhookLimitReached(50, 50),
        errors.LimitReached("max", 3, 2, 2, account_id="a" * 32),
        errors.InsufficientIPs(5, 2),
        errors.IPReserved("192.0.2.1"),
        errors.JobExists("0" * 32),
        errors.ReservationExpired(""),
        errors.TokenRestricted(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_error_of_a_reply_is_that_of_the_service(error: errors.KazooIPsError) -> None:
    status, message, data = next(REPLIES[c] for c in type(error).__mro__ if c in REPLIES)
    body = {"status": "error", "message": message, "data": data(error)}
    with pytest.raises(errors.KazooIPsError) as raised:
        Reply("https://ips.example.com", status, body).raise_for_error()
    assert (type(raised.value), str(raised.value)) == (type(error), str(error))
