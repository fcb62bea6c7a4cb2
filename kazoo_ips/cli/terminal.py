"""Tables, colours and progress bars on a terminal, by rich. None of this goes to a pipe.

`NO_COLOR` turns the colours off, and `TERM=dumb` everything. rich is imported only when a terminal
needs it, because that takes a while.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from kazoo_ips.model import Status
from kazoo_ips.model.names import printable

_STYLES: Mapping[str, str] = {
    Status.AVAILABLE: "green",
    Status.ASSIGNED: "blue",
    Status.AGING: "yellow",
    Status.RESERVED: "cyan",
    Status.DISABLED: "red",
}


def shows(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can show more than plain lines."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "")


def print_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal, with the names of statuses in colours.

    Long values continue in the next line; nothing is cut off.
    """
    from rich import box  # noqa: PLC0415 - see the module's docstring
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for line in lines:
        table.add_row(*(Text(printable(cell), style=_STYLES.get(cell, "")) for cell in line))
    Console(file=sys.stdout, highlight=False).print(table)


@contextmanager
def progress(label: str, length: int | None) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error while the context lasts, if that is a terminal.

    What the command prints meanwhile appears above the bar.

    :param length: the number of steps; None shows only that the command goes on
    :returns: a function that adds a number of steps
    """
    if not shows(sys.stderr):
        yield lambda steps: None
        return
    from rich import progress as bars  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    # Standard output in a pipe must not be written to the terminal.
    redirect = sys.stdout.isatty()
    console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
    with bars.Progress(*columns, console=console, redirect_stdout=redirect) as shown:
        task = shown.add_task(label, total=length)
        yield lambda steps: shown.advance(task, steps)
