"""Serve the built book on localhost until Ctrl-C.

python -m tools serve              on port 8000 or the next free one
python -m tools serve --port 8080  on this port and no other
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tools import SITE, arguments


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files and reports errors only."""

    protocol_version = "HTTP/1.1"  # one connection for many files, as real servers have it

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Report errors only."""
        if str(code).startswith(("4", "5")):
            super().log_request(code, size)


class QuietServer(ThreadingHTTPServer):
    """A server that says nothing of a reader who left before an answer was complete."""

    def handle_error(self, request: object, client_address: object) -> None:
        """Report what went wrong, unless the other side closed the connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def server(directory: Path, ports: Sequence[int] = (0,)) -> ThreadingHTTPServer:
    """Return a server of a folder on the first free port of those named; 0 means any."""
    handler = partial(QuietHandler, directory=str(directory))
    *first, last = ports
    for port in first:
        try:
            return QuietServer(("127.0.0.1", port), handler)
        except OSError:
            continue
    return QuietServer(("127.0.0.1", last), handler)


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--port", type=int, help="this port and no other")
    options = parser.parse_args(argv)
    if not (SITE / "index.html").exists():
        print("There is no built book yet: `make site` builds it.", file=sys.stderr)
        return 1
    ports = (options.port,) if options.port else (*range(8000, 8010), 0)
    try:
        with server(SITE, ports) as book:
            address = f"http://127.0.0.1:{book.server_port}/"
            print(f"The book is at {address}  (Ctrl-C stops)", flush=True)
            book.serve_forever()
    except KeyboardInterrupt:
        print()
    except OSError as error:
        print(f"port {options.port}: {error.strerror}; leave --port out", file=sys.stderr)
        return 1
    return 0
