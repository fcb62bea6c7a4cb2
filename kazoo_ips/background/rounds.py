"""Rounds of background work: an error ends neither the thread nor the rounds that follow."""

import logging
from collections.abc import Callable
from uuid import uuid4

from kazoo_ips.errors import KazooIPsError
from kazoo_ips.observability import request_context, tracing

log = logging.getLogger(__name__)


def run_round(name: str, do: Callable[[], object], count_failure: Callable[[], object]) -> bool:
    """Do one round, with a request context and a span of its own; return whether it succeeded.

    It raises nothing, because nothing restarts the thread. It logs an error.

    :param name: names the work in the log and in spans
    :param count_failure: counts a round that failed
    """
    work = request_context.begin(f"background-{uuid4().hex[:16]}", by="background")
    try:
        with tracing.span(work, name):
            do()
    except KazooIPsError as error:
        count_failure()
        log.warning("background work failed and will be repeated: %s: %s", name, error)
        return False
    except Exception:
        count_failure()
        log.exception("background work failed unexpectedly: %s", name)
        return False
    return True
