"""The `bare` route: what Flask and gunicorn cost when nobody has to do anything.

It returns replies that were prepared before, one file each in the folder that BENCH_BARE names.
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
    """The reply of that name, byte for byte."""
    return Response(_prepared(name), content_type="application/json")
