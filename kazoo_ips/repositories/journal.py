"""What the service remembers of its own: claims under way, and replies to repeat.

The one database that is not Kazoo's. Losing it loses no address: what is in it only says what to
finish, undo or repeat.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kazoo_ips import process
from kazoo_ips.couch.client import Couch, Document
from kazoo_ips.errors import DatastoreUnreachable
from kazoo_ips.model import Outcome, Written

JOURNAL = "kazoo_ips"
_CLAIM, _REPLY = "claim", "reply"
_CONFIRMATIONS = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """Several addresses that one request is about to take or give back.

    :param action: `assign` or `release`
    :param at: the time its writes carry, in Gregorian seconds
    :param worker: the process that is at it
    """

    id: str
    request_id: str
    account_id: str
    action: str
    at: int
    addresses: tuple[str, ...]
    worker: str
    revision: str


@dataclass(frozen=True, slots=True)
class KeptReply:
    """The reply to a request that came with an Idempotency-Key.

    :param fingerprint: of method, path and body
    :param until: until when, in Gregorian seconds, somebody is at work on it; 0 when done
    :param worker: the process that is
    :param reply: status, data and revision, once there is one
    """

    id: str
    fingerprint: str
    request_id: str
    created: int
    until: int
    worker: str
    reply: Mapping[str, Any] | None
    revision: str | None = None

    @property
    def resumed(self) -> bool:
        """Whether somebody was at it before."""
        return self.revision is not None and not self.revision.startswith("1-")


def reply_id(caller: str, key: str) -> str:
    """The document of a caller's key: the same for everybody who asks."""
    return f"{_REPLY}-{hashlib.sha256(f'{caller} {key}'.encode()).hexdigest()}"


class JournalRepository:
    """Claims and kept replies."""

    def __init__(self, couch: Couch) -> None:
        self._journal = couch.database(JOURNAL)

    # Claims.

    def open(
        self, action: str, account_id: str, request_id: str, at: int, addresses: list[str]
    ) -> Claim:
        """Note what is about to be done, before it is done.

        :param at: the time that its writes will carry, in Gregorian seconds

        :raises DatastoreUnreachable: it could not be noted, so it must not be done
        """
        # Request ids are the callers' to choose and may come twice.
        claim_id = f"{_CLAIM}-{uuid4().hex}"
        document = {
            "_id": claim_id,
            "type": _CLAIM,
            "action": action,
            "account_id": account_id,
            "request_id": request_id,
            "at": at,
            "worker": process.identity(),
            "addresses": addresses,
        }
        written = self._journal.put(document)
        if written.outcome is Outcome.UNKNOWN and written.revision:
            # On its own revision: a majority that takes it has had the first write as well.
            written = self._journal.put({**document, "_rev": written.revision})
        if written.outcome is not Outcome.DONE or written.revision is None:
            raise DatastoreUnreachable("the claim could not be noted")
        return _claim({**document, "_rev": written.revision})

    def close(self, claim: Claim) -> bool:
        """Forget a claim that is done or undone.

        :returns: whether that was us; not when somebody took it for an orphan meanwhile, nor
            when it is still there
        """
        written = self._journal.remove(claim.id, claim.revision)
        if written.outcome is Outcome.UNKNOWN and written.revision is None:
            # Whichever of the two comes first, it is our hand that strikes it out.
            again = self._journal.remove(claim.id, claim.revision)
            written = again if again.outcome is Outcome.DONE else written
        if written.outcome is Outcome.UNKNOWN:
            return self._is_closed(claim)
        return written.outcome is Outcome.DONE

    def _is_closed(self, claim: Claim) -> bool:
        """Whether our deletion is there, alone, and a quorum has it by now."""
        leaves = self._journal.leaves(claim.id, r=self._journal.replicas)
        following = f"{int(claim.revision.split('-')[0]) + 1}-"
        if len(leaves) != 1 or not leaves[0].get("_deleted"):
            return False
        [tombstone] = leaves
        return tombstone["_rev"].startswith(following) and self._journal.graft(
            tombstone, parent=claim.revision
        )

    def take_over(self, claim: Claim) -> Claim | None:
        """Take a dead process's claim, so that it can no longer close it.

        It stays noted: whoever takes it over may die as well.

        :returns: it at its new revision, or None when somebody else was faster, or when its own
            process has concluded it after all: a node that lags may show it again
        """
        document = {
            "_id": claim.id,
            "_rev": claim.revision,
            "type": _CLAIM,
            "action": claim.action,
            "account_id": claim.account_id,
            "request_id": claim.request_id,
            "at": claim.at,
            "worker": process.identity(),
            "addresses": list(claim.addresses),
            # Two who write the same at once would both be told that it was them.
            "taken_over": uuid4().hex,
        }
        written = self._journal.put(document)
        if written.outcome is not Outcome.DONE or written.revision is None:
            return None
        # Whoever concluded it was told so by a majority, and one of those is among us.
        leaves = self._journal.leaves(claim.id, r=self._journal.replicas)
        if any(leaf.get("_deleted") for leaf in leaves):
            self._journal.remove(claim.id, written.revision)
            return None
        return _claim({**document, "_rev": written.revision})

    def claims(self) -> list[Claim]:
        """All claims that nobody has closed."""
        return [_claim(d) for d in self._documents(_CLAIM)]

    # Kept replies.

    def find(self, record_id: str) -> KeptReply | None:
        """What is known of a key, or None."""
        document = self._journal.find(record_id)
        return _kept(document) if document else None

    def keep(self, kept: KeptReply) -> KeptReply | None:
        """Write what is known of a key at the revision it carries; None if it is not ours.

        :raises DatastoreUnreachable: whether it is ours cannot be found out
        """
        document = {
            "_id": kept.id,
            "type": _REPLY,
            "fingerprint": kept.fingerprint,
            "request_id": kept.request_id,
            "created": kept.created,
            "until": kept.until,
            "worker": kept.worker,
            "reply": kept.reply,
            # By which it is told from that of another who tries the same at once.
            "attempt": uuid4().hex,
        }
        revision = {"_rev": kept.revision} if kept.revision else {}
        written = self._journal.put({**document, **revision})
        if written.outcome is Outcome.UNKNOWN:
            written = self._confirm(document)
        if written.outcome is Outcome.DONE:
            return _kept({**document, "_rev": written.revision})
        return None

    def _confirm(self, document: Document) -> Written:
        """Find out about a write without a quorum or an answer: whether it is there, and alone.

        On a cluster it is written once more, which takes a majority that has it.

        :raises DatastoreUnreachable: it is not, or there is no certainty
        """
        for _ in range(_CONFIRMATIONS):
            leaves = self._journal.leaves(document["_id"], r=self._journal.replicas)
            live = [leaf for leaf in leaves if not leaf.get("_deleted")]
            if [leaf.get("attempt") for leaf in live] != [document["attempt"]]:
                break
            there = Written(Outcome.DONE, live[0]["_rev"])
            if self._journal.replicas == 1:
                return there
            written = self._journal.put({**document, "_rev": there.revision})
            if written.outcome is not Outcome.UNKNOWN:
                return written
        raise DatastoreUnreachable("the key could not be noted")

    def sweep(self, before: int) -> int:
        """Delete the replies that were kept since before a time, in Gregorian seconds.

        :returns: how many
        """
        old = [d for d in self._documents(_REPLY) if d["created"] < before]
        self._journal.put_all(
            [{"_id": d["_id"], "_rev": d["_rev"], "_deleted": True} for d in old]
        )
        return len(old)

    def _documents(self, kind: str) -> Iterator[Document]:
        return self._journal.range(f"{kind}-", f"{kind}-\uffff")


def _claim(document: Mapping[str, Any]) -> Claim:
    return Claim(
        document["_id"],
        document["request_id"],
        document["account_id"],
        document["action"],
        document["at"],
        tuple(document["addresses"]),
        document.get("worker", ""),
        document["_rev"],
    )


def _kept(document: Mapping[str, Any]) -> KeptReply:
    return KeptReply(
        document["_id"],
        document["fingerprint"],
        document["request_id"],
        document["created"],
        document["until"],
        document.get("worker", ""),
        document["reply"],
        document["_rev"],
    )
