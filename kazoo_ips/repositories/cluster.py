"""CouchDB's nodes, and how far its indexes are behind."""

from typing import NamedTuple

from kazoo_ips.couch.client import Couch
from kazoo_ips.errors import DatastoreError, DatastoreForbidden, DatastoreMissing
from kazoo_ips.repositories.accounts import ACCOUNTS
from kazoo_ips.repositories.documents import POOL
from kazoo_ips.repositories.history_years import HistoryYears, database_name


class Cluster(NamedTuple):
    """The nodes of CouchDB.

    :param missing: nodes of the cluster that are not connected
    :param replicas: how many nodes keep each document of the pool
    :param has_quorum: whether a majority of the replicas of each shard is connected; None if the
        service's user may not know
    """

    version: str
    connected: tuple[str, ...]
    missing: tuple[str, ...]
    replicas: int
    has_quorum: bool | None


class IndexState(NamedTuple):
    """How far an index is behind its database.

    :param pending: the changes that are not in the index; None if CouchDB does not say
    """

    database: str
    name: str
    pending: int | None
    is_building: bool


class ClusterRepository:
    """Asks CouchDB about itself."""

    def __init__(self, couch: Couch, years: HistoryYears) -> None:
        self._couch = couch
        self._years = years

    def cluster(self) -> Cluster:
        """Return the nodes.

        :raises DatastoreUnreachable: CouchDB does not answer
        """
        version, pool = self._couch.version(), self._couch.database(POOL)
        try:
            membership = self._couch.membership()
            shards = pool.shards()
        except (DatastoreForbidden, DatastoreMissing):
            return Cluster(version, (), (), pool.replicas, None)
        connected = {str(node) for node in membership.get("all_nodes", ())}
        missing = {str(node) for node in membership.get("cluster_nodes", ())} - connected
        has_quorum = all(
            2 * len(connected.intersection(nodes)) > len(nodes) for nodes in shards.values()
        )
        return Cluster(
            version, tuple(sorted(connected)), tuple(sorted(missing)), pool.replicas, has_quorum
        )

    def indexes(self) -> list[IndexState]:
        """Return the state of each index that the service uses."""
        wanted = [(POOL, "ips"), (ACCOUNTS, "logins"), (ACCOUNTS, "account_tree")]
        wanted += [(database_name(year), "history") for year in self._years.existing()]
        return [state for each in wanted if (state := self._index(*each))]

    def _index(self, database: str, name: str) -> IndexState | None:
        try:
            info = self._couch.database(database).index_info(name)
        except DatastoreError:  # it is missing, which `/readyz` reports
            return None
        pending = (info.get("updates_pending") or {}).get("minimum")
        return IndexState(database, name, pending, bool(info.get("updater_running")))
