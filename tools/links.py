"""Ask every external link of the book whether it still leads somewhere.

    python -m tools links          ask them all, with Sphinx's linkcheck; needs a network
    python -m tools links --list   print them, each with where it stands

Links are those of the pages, of the chapters' cells, of attnlib's docstrings, of the published
models' sources and of the museum's bugs. Their form is held offline by tests/test_links.py.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from attnlib.book.museum import BUGS
from attnlib.models import MODELS
from tools import ROOT, arguments

# In Markdown a link may hold spaces by mistake, in text an address ends at the first one.
MARKDOWN = re.compile(r"\]\(\s*<?(https?://(?:[^()<>]|\([^()]*\))*?)>?\s*(?:\"[^\"]*\")?\)")
BARE = re.compile(r"https?://[^\s<>\"'`\\)\]}]+")

CONF = """\
extensions = []
root_doc = "index"
linkcheck_anchors = False  # GitHub and others write theirs with scripts
linkcheck_retries = 3
linkcheck_timeout = 30
linkcheck_workers = 4
linkcheck_rate_limit_timeout = 120.0
"""

DOI = re.compile(r"https://doi\.org/(.+)")


def found_in(text: str) -> set[str]:
    """Return the addresses that a text holds, as they are written."""
    links = set(MARKDOWN.findall(text))
    rest = MARKDOWN.sub("", text)
    return links | {link.rstrip(".,;:!?*") for link in BARE.findall(rest)}


def texts() -> Iterator[tuple[str, str]]:
    """Yield all that may hold links, each with a name for where it stands."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("appendix/*.md")]):
        yield path.name, path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            yield f"chapters/{path.name}", cell.source
    for path in sorted((ROOT / "attnlib").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                yield name, ast.get_docstring(node) or ""
    for model in MODELS.values():
        yield f"attnlib/models.json, {model.name}", "\n".join(model.links)
    for bug in BUGS.values():
        yield f"attnlib/book/museum/catalogue.py, {bug.name}", "\n".join(bug.threads)


def collect() -> dict[str, list[str]]:
    """Return all external links, each with the places where it stands."""
    places: dict[str, list[str]] = defaultdict(list)
    for place, text in texts():
        for link in found_in(text):
            if place not in places[link]:
                places[link].append(place)
    return dict(sorted(places.items()))


def asked(link: str) -> str:
    """Return the address to ask about a link: publishers turn robots away, doi.org does not."""
    return DOI.sub(r"https://doi.org/api/handles/\1", link)


def broken(links: list[str]) -> dict[str, str]:
    """Ask links; return those that lead nowhere, each with the reason.

    Args:
        links: addresses.

    Raises:
        RuntimeError: if linkcheck reports nothing, or leaves a link out.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "conf.py").write_text(CONF, encoding="utf-8")
        items = "\n".join(f"- `{i} <{asked(link)}>`__" for i, link in enumerate(links))
        (folder / "index.rst").write_text(f"Links\n=====\n\n{items}\n", encoding="utf-8")
        command = [sys.executable, "-m", "sphinx", "-q", "-b", "linkcheck", name, f"{name}/out"]
        subprocess.run(command, check=False, capture_output=True)
        output = folder / "out" / "output.json"
        lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    answers = {answer["uri"]: answer for answer in map(json.loads, lines)}
    missing = {asked(link) for link in links} - set(answers)
    if missing:
        raise RuntimeError(f"linkcheck said nothing of {sorted(missing)[0]}")
    states = {link: answers[asked(link)] for link in links}
    return {
        link: f"{state['status']}: {state['info']}"
        for link, state in states.items()
        if state["status"] not in {"working", "redirected", "unchecked"}
    }


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--list", action="store_true", help="print the links, ask none")
    options = parser.parse_args(argv)
    places = collect()
    if options.list:
        for link, where in places.items():
            print(link, *where, sep="\n    ")
        return 0
    dead = broken(list(places))
    for link, reason in dead.items():
        print(f"{link}\n    {reason}\n    in {', '.join(places[link])}")
    print(f"links: {len(places)} asked, {len(dead)} lead nowhere")
    return 1 if dead else 0
