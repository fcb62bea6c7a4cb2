"""A minimal release: it accepts sockets, replies with its name, and ends after SIGTERM.

python release.py NAME STATUS
"""

import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, STATUS = sys.argv[1], int(sys.argv[2])


class Handler(BaseHTTPRequestHandler):
    """Gives every request the same reply."""

    def do_GET(self) -> None:
        text = f"{NAME} {os.getpid()} {os.environ.get('KAZOO_IPS_LOG_LEVEL', '')}".encode()
        self.send_response(STATUS)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""


for bind in os.environ["KAZOO_IPS_BIND"].split(","):
    server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=int(bind.removeprefix("fd://")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
signal.sigwait({signal.SIGTERM})
