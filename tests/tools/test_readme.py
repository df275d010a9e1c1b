"""The README shows what its code prints, and leads to files that exist."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("README.md", "DESIGN.md", "STYLE.md", "CONTRIBUTING.md")
PATH = re.compile(r"`((?:attnlib|tests|tools|chapters|appendix|_ext|images)/[\w./-]*)`")
PATTERNS = ("xya", "lens", "TOPIC", "NAME", "x_y", "x/y")  # stand for a name of the reader's


def test_the_examples_print_what_stands_below_them():
    """Catches a name, a size or a report in the README that is no longer true."""
    blocks = [(kind, code) for kind, code in BLOCK.findall(TEXT) if kind in ("python", "text")]
    namespace, printed, expected = {}, "", ""
    for kind, code in blocks:
        if kind == "python":
            stream = io.StringIO()
            with redirect_stdout(stream):
                exec(compile(code, "README.md", "exec"), namespace)
            printed += stream.getvalue()
        else:
            expected += code
    assert printed == expected
    assert "FAILS" in expected


@pytest.mark.parametrize("page", PAGES)
def test_paths_in_prose_exist(page):
    """Catches a file that was moved or renamed after the page was written."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = [path for path in PATH.findall(text) if not any(p in path for p in PATTERNS)]
    assert paths or links
    missing = [path for path in (*paths, *links) if not (ROOT / path).exists()]
    assert not missing
