"""The table of faults: the outcome of each fault at each write of each request.

`test_faults.py` tests every line of it. `docs/faults.md` contains it, and `test_table.py`
checks that the two are equal. `python -m tests.faults.table` prints it for the page.
"""

from collections.abc import Iterator
from dataclasses import dataclass

FAULTS = {
    "202": "the write is done, but CouchDB answers 202: no quorum",
    "lost": "the write is done, its response is lost",
    "500 after": "the write is done, but the response is 500, without a content type",
    "late": "the write reaches CouchDB only after the client has got its reply",
    "cut": "the connection is closed before the write reaches CouchDB",
    "500": "the response is 500, without a content type; nothing is written",
    "502": "a proxy answers 502 in HTML; nothing is written",
    "409": "the response is 409, in chunks; nothing is written",
    "away": "CouchDB is unreachable from before the write until after the reply to the client",
}


@dataclass(frozen=True)
class Line:
    """The outcome of each of some faults at one write of a request.

    :param request: one of the operations of `test_faults.py`
    :param write: the write at which the fault happens
    :param faults: names of faults, as in `FAULTS`
    :param reply: status and message of the reply
    :param then: the content of the database right after the reply
    :param finally_: its content after the background worker has run
    """

    request: str
    write: str
    faults: tuple[str, ...]
    reply: str
    then: str
    finally_: str

    def __str__(self) -> str:
        return f"{self.request}: {self.write}: {', '.join(self.faults)}"

    @property
    def cases(self) -> Iterator[tuple[str, str, str]]:
        """Each fault as a case of its own: request, write, fault."""
        for fault in self.faults:
            yield self.request, self.write, fault


def _table(text: str) -> tuple[Line, ...]:
    lines = []
    for row in text.strip().splitlines():
        request, write, faults, reply, then, finally_ = (c.strip() for c in row.split("|"))
        names = tuple(FAULTS) if faults == "all" else tuple(faults.split(", "))
        lines.append(Line(request, write, names, reply, then, finally_))
    return tuple(lines)


TABLE = _table("""
create                 | pool       | 202, away                                      | 503 datastore_unreachable | not done        | not done
create                 | pool       | lost, 500 after, late, cut, 500, 502, 409      | 201                       | done            | done
create many            | pool       | 202, away                                      | 503 datastore_unreachable | not done        | not done
create many            | pool       | lost, 500 after, late, cut, 500, 502, 409      | 201                       | done            | done
delete                 | pool       | 202, away                                      | 503 datastore_unreachable | not done        | not done
delete                 | pool       | lost, 500 after, late, cut, 500, 502           | 200                       | done            | done
delete                 | pool       | 409                                            | 409 datastore_conflict    | not done        | not done
delete by force        | pool       | 202, away                                      | 503 datastore_unreachable | not done        | not done
delete by force        | pool       | lost, 500 after, late, cut, 500, 502           | 200                       | done            | done
delete by force        | pool       | 409                                            | 409 datastore_conflict    | not done        | not done
delete by force        | copy       | 202, lost, 500 after                           | 200                       | done            | done
delete by force        | copy       | late, cut, 500, 502, 409, away                 | 200                       | done, copy left | done
assign one             | pool       | 202, late, cut, 500, 502, 409, away            | 503 datastore_unreachable | not done        | not done
assign one             | pool       | lost, 500 after                                | 200                       | done            | done
assign one             | copy       | 202, lost, 500 after, 409                      | 200                       | done            | done
assign one             | copy       | late, cut, 500, 502                            | 503 datastore_unreachable | not done        | not done
assign one             | copy       | away                                           | 503 datastore_unreachable | done, no copy   | done
assign many            | record     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
assign many            | record     | away                                           | 503 datastore_unreachable | not done        | not done
assign many            | pool       | 202, late, cut, 500, 502, 409, away            | 503 datastore_unreachable | not done        | not done
assign many            | pool       | lost, 500 after                                | 200                       | done            | done
assign many            | copy       | 202, lost, 500 after, 409                      | 200                       | done            | done
assign many            | copy       | late, cut, 500, 502                            | 503 datastore_unreachable | not done        | not done
assign many            | copy       | away                                           | 503 datastore_unreachable | done, no copy   | not done
assign many            | commit     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
assign many            | commit     | away                                           | 503 datastore_unreachable | done            | not done
allocate 1             | pool       | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
allocate 1             | pool       | away                                           | 503 datastore_unreachable | not done        | not done
allocate 1             | copy       | 202, lost, 500 after, 409                      | 200                       | done            | done
allocate 1             | copy       | late, cut, 500, 502                            | 503 datastore_unreachable | not done        | not done
allocate 1             | copy       | away                                           | 503 datastore_unreachable | done, no copy   | done
allocate 3             | record     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
allocate 3             | record     | away                                           | 503 datastore_unreachable | not done        | not done
allocate 3             | pool       | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
allocate 3             | pool       | away                                           | 503 datastore_unreachable | not done        | not done
allocate 3             | copy       | 202, lost, 500 after, 409                      | 200                       | done            | done
allocate 3             | copy       | late, cut, 500, 502                            | 503 datastore_unreachable | not done        | not done
allocate 3             | copy       | away                                           | 503 datastore_unreachable | done, no copy   | not done
allocate 3             | commit     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
allocate 3             | commit     | away                                           | 503 datastore_unreachable | done            | not done
release one            | pool       | late, cut, 500, 502, 409, away                 | 503 datastore_unreachable | not done        | not done
release one            | pool       | 202, lost, 500 after                           | 200                       | done            | done
release one            | copy       | 202, lost, 500 after                           | 200                       | done            | done
release one            | copy       | late, cut, 500, 502, 409, away                 | 200                       | done, copy left | done
release many           | record     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
release many           | record     | away                                           | 503 datastore_unreachable | not done        | not done
release many           | mark       | 202, late, cut, 500, 502, 409, away            | 503 datastore_unreachable | not done        | not done
release many           | mark       | lost, 500 after                                | 200                       | done            | done
release many           | commit     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
release many           | commit     | away                                           | 503 datastore_unreachable | not done        | not done
release many           | pool       | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
release many           | pool       | away                                           | 200                       | not done        | done
release many           | copy       | 202, lost, 500 after                           | 200                       | done            | done
release many           | copy       | late, cut, 500, 502, 409, away                 | 200                       | done, copy left | done
release all            | record     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
release all            | record     | away                                           | 503 datastore_unreachable | not done        | not done
release all            | mark       | 202, late, cut, 500, 502, 409, away            | 503 datastore_unreachable | not done        | not done
release all            | mark       | lost, 500 after                                | 200                       | done            | done
release all            | commit     | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
release all            | commit     | away                                           | 503 datastore_unreachable | not done        | not done
release all            | pool       | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
release all            | pool       | away                                           | 200                       | not done        | done
release all            | copy       | 202, lost, 500 after                           | 200                       | done            | done
release all            | copy       | late, cut, 500, 502, 409, away                 | 200                       | done, copy left | done
assign one, with a key | key taken  | 202, lost, 500 after, late, cut, 500, 502, 409 | 200                       | done            | done
assign one, with a key | key taken  | away                                           | 503 datastore_unreachable | not done        | not done
assign one, with a key | reply kept | all                                            | 200                       | done            | done
""")  # noqa: E501 - aligned columns


def render() -> str:
    """Return the tables in Markdown, as `docs/faults.md` has them."""
    parts = ["| fault | what happens |", "|---|---|"]
    parts += [f"| {name} | {meaning} |" for name, meaning in FAULTS.items()]
    for request in dict.fromkeys(line.request for line in TABLE):
        parts += ["", f"## {request[0].upper()}{request[1:]}", ""]
        parts.append("| write | faults | reply | right after | in the end |")
        parts.append("|---|---|---|---|---|")
        for line in TABLE:
            if line.request == request:
                names = "all" if len(line.faults) == len(FAULTS) else ", ".join(line.faults)
                cells = (line.write, names, line.reply, line.then, line.finally_)
                parts.append(f"| {' | '.join(cells)} |")
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(render(), end="")
