"""The `bare` route, which measures the cost of Flask and gunicorn without any work.

It returns prepared replies: the files of the directory that BENCH_BARE names.
"""

import os
from functools import cache
from pathlib import Path

from flask import Flask, Response

app = Flask("bare", static_folder=None)


@cache
def _prepared(name: str) -> bytes:
    return Path(os.environ["BENCH_BARE"], name).read_bytes()


@app.route("/<name>", methods=["GET", "POST", "PUT", "DELETE"])
def prepared(name: str) -> Response:
    """Return the prepared reply of that name."""
    return Response(_prepared(name), content_type="application/json")
