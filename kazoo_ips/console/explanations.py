"""What the pages say: about errors, and about what a form has changed."""

from collections.abc import Mapping

from kazoo_ips import errors

DONE: Mapping[str, str] = {
    "added": "The address was added to the pool.",
    "assigned": "Assigned.",
    "released": "Released.",
    "deleted": "The address was deleted from the pool.",
    "imported": "The addresses were imported.",
    "reserved": "The addresses are reserved.",
    "extended": "The end of the reservation was changed.",
    "cancelled": "The reservation was cancelled.",
    "limits_set": "The limits were changed.",
    "changed": "The address was changed.",
    "transferred": "Transferred.",
    "job_started": "The job is under way.",
    "job_stopped": "The job finishes the addresses that it is changing now, and stops.",
    "drained": "It is drained. The service disables the remaining addresses in the background.",
    "enabled": "It is enabled. The service enables the remaining addresses in the background.",
    "settings_changed": "The settings were changed.",
    "webhook_created": "The webhook was created.",
    "webhook_changed": "The webhook was changed.",
    "webhook_deleted": "The webhook was deleted.",
    "webhook_replayed": "The events since that time are delivered again.",
}
"""By the value of `done` in the URL, what the page says at its top."""

_STATUSES = {
    400: "The service cannot read this request.",
    403: "You may not open this page.",
    404: "There is no such page.",
    405: "This page cannot be used in this way.",
    413: "The file is too large for the console. Use the command kazoo-ips add.",
}

_TEXTS: dict[type[Exception], str] = {
    errors.TooManyAttempts: "Too many logins have failed. Wait {seconds} s, and try again.",
    errors.TooManyRequests: "Too many requests. Wait {seconds} s, and try again.",
    errors.TokenRestricted: "Your user may not do this.",
    errors.Forbidden: "You may not do this. If you used an old form, open its page again.",
    errors.BadIdentifier: "There is nothing with the name {cause}.",
    errors.AccountNotFound: "There is no account {cause}.",
    errors.IPNotFound: "The pool has no address {cause}.",
    errors.WebhookNotFound: "There is no webhook {cause}.",
    errors.IPExists: "The pool has this address already.",
    errors.IPsExist: "The pool has some of these addresses already.",
    errors.IPAssigned: "The address is assigned. Release it first.",
    errors.Conflict: "Another request was faster. Nothing was changed; open the page again.",
    errors.PreconditionFailed: "It was changed after you opened the page. Nothing was "
    "changed now; open the page again.",
    errors.InsufficientIPs: "{requested} addresses were requested, and only {available} are "
    "available.",
    errors.LimitReached: "The account may have {limit} addresses{place}, and has {used}.",
    errors.ReservationNotFound: "The reservation has ended, or there was none.",
    errors.ReservationExpired: "The reservation has ended, so nothing was assigned.",
    errors.ReservationLimitReached: "The account has {used} open reservations, and {limit} is "
    "the limit.",
    errors.JobExists: "Another job works on this host. Wait for it, or stop it.",
    errors.JobNotFound: "There is no job {cause}.",
    errors.WebhookLimitReached: "There are {used} webhooks, and {limit} is the limit.",
    errors.DatastoreError: "CouchDB does not answer, or refuses the request. Open the "
    "page again later to see whether something was changed.",
}
"""The text for each error, with the attributes of the error. An error without one has that of its
nearest base class."""


def of_status(code: int) -> str:
    """Return the text for an HTTP status that the framework has chosen."""
    return _STATUSES.get(code, f"The request failed with status {code}.")


def of_error(error: Exception, code: int) -> list[str]:
    """Return the texts for an error.

    :param code: the HTTP status of the reply
    """
    if isinstance(error, errors.ValidationFailed):
        return of_rules(error)
    text = next((_TEXTS[kind] for kind in type(error).__mro__ if kind in _TEXTS), None)
    if text is None:
        return [
            of_status(code) if code < 500 else "The service has a fault. Its log has the details."
        ]
    zone = getattr(error, "zone", None)
    return [text.format_map({**vars(error), "place": f" in {zone}" if zone else ""})]


def of_rules(error: errors.ValidationFailed) -> list[str]:
    """Return one sentence for each rule that a form has broken."""
    texts = []
    for path, rules in error.errors.items():
        for rule in rules.values():
            given = rule.get("value", rule.get("cause"))
            shown = f" ({given})" if isinstance(given, str) and given else ""
            texts.append(f"{_name(path)}: {rule.get('message', 'invalid')}{shown}")
    return texts


def _name(path: str) -> str:
    return "address" if path.startswith("ips.") or path == "ip" else path.replace("_", " ")
