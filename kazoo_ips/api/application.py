"""The Flask application, without the steps of Flask that this service does not need.

Each step costs every request processor time.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from flask import Flask, Request, appcontext_tearing_down, request_tearing_down
from werkzeug.routing import Map, MapAdapter


class Application(Flask):
    """A Flask application whose handlers are no coroutines, and whose routes ignore the host."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a handler or hook unchanged. Flask would look whether it is a coroutine."""
        return func

    def preprocess_request(self) -> Any:
        """Call the hooks before a handler; return the reply of one that has a reply."""
        hooks = self.before_request_funcs
        if self.url_value_preprocessors or hooks.keys() != {None}:
            return super().preprocess_request()
        for hook in hooks[None]:
            reply = hook()
            if reply is not None:
                return reply
        return None

    def do_teardown_request(self, *exc: Any) -> None:
        """Call the hooks at the end of a request, if there are any."""
        if self.teardown_request_funcs or request_tearing_down.receivers:
            super().do_teardown_request(*exc)

    def do_teardown_appcontext(self, *exc: Any) -> None:
        """Call the hooks at the end of a context, if there are any."""
        if self.teardown_appcontext_funcs or appcontext_tearing_down.receivers:
            super().do_teardown_appcontext(*exc)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what matches the path of a request with the routes; None outside a request.

        Flask does the same, but reads host and path from the environment twice, and encodes the
        host by IDNA each time.

        :raises BadHost: the host is not a valid name
        """
        if request is None or "HTTP_UPGRADE" in request.environ:  # perhaps a WebSocket
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map,
            _server_name(request.host),
            request.root_path,
            self.url_map.default_subdomain,
            request.scheme,
            request.path,
            request.method,
            request.query_string.decode("utf-8", "replace"),
        )


@lru_cache(maxsize=128)
def _server_name(host: str) -> str:
    return Map().bind(host).server_name
