"""Measure every page with Lighthouse on phone settings, over a server that compresses.

    python -m tools lighthouse               every page of the book in _build/html
    python -m tools lighthouse intro.html    these only

It needs Node.js. Lighthouse is taken from npm by `npx`, in the version named here, or from the
program that `LIGHTHOUSE` names. It loads a page on a slowed processor and a slowed network, so
other work on the machine lowers the first column. A page is measured up to three times until
it reaches the bar, and the best of the runs counts.
"""

from __future__ import annotations

import gzip
import json
import os
import shlex
import subprocess
import tempfile
from functools import cache, partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from tools import SITE, arguments, browser
from tools.serve import QuietHandler

LIGHTHOUSE = "npx --yes lighthouse@12.2.3"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
BAR = 90
RUNS = 3
FLAGS = ("--headless=new", "--no-sandbox", "--disable-quic", *browser.LAUNCH_ARGUMENTS)
COMPRESSED = {".html", ".css", ".js", ".svg", ".json", ".xml", ".ipynb"}


@cache
def squeeze(path: Path) -> bytes:
    """Return a file's bytes as gzip sends them."""
    return gzip.compress(path.read_bytes(), 6)


class GzipHandler(QuietHandler):
    """Serves text compressed and with a time to live, as GitHub Pages does."""

    def end_headers(self) -> None:
        """Let a browser keep what it got for ten minutes."""
        self.send_header("Cache-Control", "max-age=600")
        super().end_headers()

    def do_GET(self) -> None:
        """Send a file, compressed if it is text and the browser can read that."""
        path = Path(self.translate_path(self.path))
        known = path.is_file() and path.suffix in COMPRESSED
        if not known or "gzip" not in self.headers.get("Accept-Encoding", ""):
            super().do_GET()
            return
        data = squeeze(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def least(result: tuple[dict[str, int], int, list[str]]) -> int:
    """Return the lowest of a page's scores."""
    return min(result[0].values())


def measure(address: str) -> tuple[dict[str, int], int, list[str]]:
    """Return a page's scores of 100, the bytes it loads, and what costs it points."""
    command = shlex.split(os.environ.get("LIGHTHOUSE", LIGHTHOUSE))
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "report.json"
        command += [
            address,
            "--quiet",
            "--output=json",
            f"--output-path={target}",
            f"--only-categories={','.join(CATEGORIES)}",
            f"--chrome-flags={' '.join(FLAGS)}",
        ]
        environment = os.environ | {"CHROME_PATH": browser.find() or ""}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        report = json.loads(target.read_text(encoding="utf-8"))
    scores, faults = {}, []
    for name in CATEGORIES:
        category = report["categories"][name]
        scores[name] = round(100 * (category["score"] or 0))
        for reference in category["auditRefs"]:
            audit = report["audits"][reference["id"]]
            if reference["weight"] and audit["score"] is not None and audit["score"] < 0.9:
                faults.append(f"{audit['id']} {audit.get('displayValue', '')}".strip())
    return scores, int(report["audits"]["total-byte-weight"]["numericValue"]), faults


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("pages", nargs="*", help="relative to the site (default: all)")
    options = parser.parse_args(argv)
    folders = (SITE, SITE / "chapters", SITE / "appendix")
    found = [p.relative_to(SITE).as_posix() for f in folders for p in sorted(f.glob("*.html"))]
    pages = options.pages or [page for page in found if page not in ("index.html", "404.html")]
    low = []
    print(f"{'page':44}" + "".join(f"{name:>15}" for name in CATEGORIES) + "       KB")
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(GzipHandler, directory=str(SITE))
    ) as host:
        Thread(target=host.serve_forever, daemon=True).start()
        for page in pages:
            results = []
            while len(results) < RUNS and not any(least(result) >= BAR for result in results):
                results.append(measure(f"http://127.0.0.1:{host.server_port}/{page}"))
            scores, size, faults = max(results, key=least)
            row = "".join(f"{scores[name]:15}" for name in CATEGORIES)
            print(f"{page:44}{row}{size / 1000:9.0f}", flush=True)
            if min(scores.values()) < BAR:
                low.append(page)
                print(*(f"    {fault}" for fault in faults), sep="\n", flush=True)
        host.shutdown()
    print(f"{len(pages) - len(low)} of {len(pages)} pages have at least {BAR} in all four")
    return 1 if low else 0
