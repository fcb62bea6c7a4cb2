"""Jobs of the operator and their plans, read and changed over the API."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from kazoo_ips.errors import JobNotFound
from kazoo_ips.model import EvacuateHost, MoveHost
from kazoo_ips.model.jobs import ItemResult, Job, JobItem, JobKind, JobState
from kazoo_ips.remote import resources
from kazoo_ips.remote.client import APIClient, segment
from kazoo_ips.services.jobs.management import ItemPage
from kazoo_ips.services.jobs.plans import EvacuationPlan, MovePlan, ZonePlan


class RemoteJobs:
    """Creates, shows and stops jobs, which the service carries out."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def create(self, command: MoveHost | EvacuateHost, request_id: str) -> Job:
        """Create a job.

        :raises JobExists: another job works on the host
        """
        path, data = _request(command)
        return _job(self._client.write("POST", path, data, request_id=request_id).data)

    def list(self) -> list[Job]:
        """Return all jobs of the last weeks, the latest first."""
        return [_job(each) for page in self._client.pages("/ips/jobs") for each in page.data]

    def fetch(self, job_id: str) -> Job:
        """Return a job.

        :raises BadIdentifier: no job has the id
        """
        return _job(self._client.get(_path(job_id), page_size=1).data)

    def stop(self, job_id: str) -> Job:
        """Stop a job between two of its parts. A job that has ended does not change.

        :raises BadIdentifier: no job has the id
        """
        return _job(self._client.write("DELETE", _path(job_id)).data)

    def items(self, job: Job, limit: int, *, failed: bool = False) -> ItemPage:
        """Return the first addresses of a job.

        :param limit: the maximum number
        :param failed: only those that the job could not move or replace
        """
        reply = self._client.get(_path(job.id), page_size=limit, failed=failed)
        return ItemPage(tuple(map(_item, reply.data["items"])))


class RemotePlans:
    """Returns what jobs would do: the replies of dry runs."""

    def __init__(self, client: APIClient) -> None:
        self._client = client

    def move(self, command: MoveHost) -> MovePlan:
        """Return what a move would do.

        :raises JobExists: another job works on the host
        """
        counts = self._plan(command)["counts"]
        return MovePlan(
            command, {(each["status"], each["zone"]): each["addresses"] for each in counts}
        )

    def evacuate(self, command: EvacuateHost, shown: int) -> EvacuationPlan:
        """Return what an evacuation would do.

        :param shown: the maximum number of addresses in the plan; the service shows 1,000 at most
        :raises JobExists: another job works on the host
        """
        plan = self._plan(command)
        zones = (ZonePlan(z["zone"], z["needed"], z["available"]) for z in plan["zones"])
        items = tuple(map(_item, plan["items"][:shown]))
        return EvacuationPlan(command, plan["total"], tuple(zones), items)

    def items(self, command: EvacuateHost) -> Iterator[JobItem]:
        """Yield the addresses of the plan of an evacuation: the first 1,000."""
        yield from map(_item, self._plan(command)["items"])

    def _plan(self, command: MoveHost | EvacuateHost) -> Any:
        path, data = _request(command)
        return self._client.write("POST", path, data, dry_run=True).data


class ServiceWork:
    """Takes the place of `JobThread`: the service at the URL carries out the jobs."""

    @staticmethod
    def round() -> bool:
        """Do nothing."""
        return False


def _request(command: MoveHost | EvacuateHost) -> tuple[str, dict[str, str]]:
    """Return the path and the data of the request for a job."""
    path = f"/ips/hosts/{segment(command.host)}"
    if isinstance(command, EvacuateHost):
        return f"{path}/evacuate", {}
    to = {"host": command.to_host, "zone": command.to_zone}
    return f"{path}/move", {name: value for name, value in to.items() if value is not None}


def _path(job_id: str) -> str:
    """Return the path of a job.

    :raises JobNotFound: the id is empty; that is the path of the list
    """
    if not job_id:
        raise JobNotFound(job_id)
    return f"/ips/jobs/{segment(job_id)}"


def _job(given: Mapping[str, Any]) -> Job:
    return Job(
        id=given["id"],
        kind=JobKind(given["kind"]),
        host=given["host"],
        request_id=given["request_id"],
        created=given["created"],
        updated=given["updated"],
        to_host=given.get("to_host"),
        to_zone=given.get("to_zone"),
        by=resources.author(given),
        state=JobState(given["state"]),
        ended=given.get("ended"),
        total=given["total"],
        counts=Counter(given["results"]),
    )


def _item(given: Mapping[str, Any]) -> JobItem:
    result = given.get("result")
    return JobItem(
        given["ip"],
        given["zone"],
        given.get("account_id"),
        given.get("replaced_by"),
        ItemResult(result) if result else None,
    )
