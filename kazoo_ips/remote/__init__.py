"""The services of another machine: what commands need of them, called over the HTTP API.

The classes of this folder have the methods of `services/` that commands call. They take the same
commands, return the same models and raise the same errors. `RemoteFailure` says why there is no
result at all: no connection, no valid token, another program at the URL.
"""
