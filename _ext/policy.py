"""A Content-Security-Policy for every page: scripts are the book's own, and nothing else runs.

Scripts come from the book's own address, or stand in the page with the hash of their text in
the policy: those of the widgets, so that a page works from disk, and a few lines of the theme.
Nothing is asked of any other address. Styles may stand in elements, since widgets set them.
A page is sent without headers of its own, so the policy stands in its head.
"""

from __future__ import annotations

import base64
import hashlib
import re

INLINE = re.compile(r"<script(?P<attributes>[^>]*)>(?P<code>.*?)</script>", re.DOTALL)
TYPE = re.compile(r'\btype="(?P<kind>[^"]*)"')
RUNS = {"", "module", "text/javascript", "application/javascript"}
CLICK = re.compile(r' onclick="(?:window\.)?(?P<does>\w+)\(\)"')
HANDLER = re.compile(r"<[a-z][^>]* (?P<handler>on[a-z]+)=", re.IGNORECASE)
CHARSET = re.compile(r"<meta charset=[^>]*>", re.IGNORECASE)
MARK = '<meta http-equiv="Content-Security-Policy"'


class PolicyError(Exception):
    """Something in a page that the policy would silently stop."""


def hashes(page: str) -> list[str]:
    """Return the hashes of the scripts that stand in a page and run, each once, in order."""
    found = []
    for script in INLINE.finditer(page):
        kind = TYPE.search(script["attributes"])
        if " src=" in script["attributes"] or (kind["kind"] if kind else "") not in RUNS:
            continue
        digest = hashlib.sha256(script["code"].encode("utf-8")).digest()
        found.append(f"'sha256-{base64.b64encode(digest).decode('ascii')}'")
    return list(dict.fromkeys(found))


def policy(page: str) -> str:
    """Return the policy of a page."""
    rules = {
        "default-src": ["'none'"],
        "script-src": ["'self'", *hashes(page)],
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "base-uri": ["'none'"],
    }
    return "; ".join(f"{name} {' '.join(sources)}" for name, sources in rules.items())


def guarded(page: str) -> str:
    """Return a page with its policy, and with clicks that a script hears (`_static/book.js`).

    Raises:
        PolicyError: if an element has another handler in an attribute, which would never run.
    """
    if MARK in page:
        return page
    page = CLICK.sub(r' data-click="\g<does>"', page)
    if found := HANDLER.search(INLINE.sub("", page)):
        raise PolicyError(f"an attribute {found['handler']} would not run")
    return CHARSET.sub(
        lambda m: f'{m[0]}\n    {MARK} content="{policy(page)}" />', page, count=1
    )
