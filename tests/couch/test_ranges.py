"""The last document of each range of ids."""

from kazoo_ips.couch.client import Database


def test_the_last_document_of_each_range_in_their_order(pool: Database) -> None:
    pool.put_all([{"_id": name} for name in ("a1", "a2", "b1", "c1")], w=pool.replicas)
    pool.remove("b1", pool.get("b1")["_rev"])
    ranges = [("c", "c\uffff"), ("a", "a\uffff"), ("b", "b\uffff"), ("a", "a1"), ("z", "z9")]
    several = [found and found["_id"] for found in pool.last(ranges)]
    assert several == ["c1", "a2", None, "a1", None]
    for each, expected in zip(ranges, several, strict=True):
        (alone,) = pool.last([each])
        assert (alone and alone["_id"]) == expected
