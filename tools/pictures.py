"""Draw the pictures that stand outside the chapters: on the front page and in the README.

    python -m tools pictures           draw those whose code or numbers changed
    python -m tools pictures --check   draw nothing, exit 1 if one is out of date

A picture carries a fingerprint of the code and the numbers it was drawn from, so that the check
needs no comparison of pixels, which differ between machines.
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

from PIL import Image

from attnlib.book import plots
from tools import ROOT, arguments

IMAGES = ROOT / "images"

# Sizes of DeepSeek-V3's heads: 128 of width 128, a latent of 512 and a rotary key of 64; GQA
# with 8 KV heads. Source: arXiv 2412.19437, section 4.2.
CACHED = {
    "MHA": 2 * 128 * 128,
    "GQA": 2 * 8 * 128,
    "MQA": 2 * 128,
    "MLA": 512 + 64,
}
PICTURES = {"variants.png": (plots.variants, CACHED)}


def fingerprint(name: str) -> str:
    """Return a hash of the code, the look and the numbers that a picture is drawn from."""
    draw, numbers = PICTURES[name]
    sources = [inspect.getsource(inspect.getmodule(part)) for part in (draw, plots.styled)]
    style = Path(plots.STYLE).read_text(encoding="utf-8")
    return hashlib.sha256("\n".join([*sources, style, repr(numbers)]).encode()).hexdigest()


def is_current(name: str) -> bool:
    """Whether a picture exists and carries the fingerprint of today's code."""
    path = IMAGES / name
    if not path.exists():
        return False
    with Image.open(path) as image:
        return image.info.get("Source") == fingerprint(name)


def main(argv: list[str]) -> int:
    """Draw or check all pictures."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="draw nothing, only look")
    check = parser.parse_args(argv).check
    stale = [name for name in PICTURES if not is_current(name)]
    for name in stale:
        if check:
            print(f"images/{name} is out of date: run `make pictures`")
            continue
        draw, numbers = PICTURES[name]
        metadata = {"Source": fingerprint(name), "Software": None}
        draw(numbers).savefig(IMAGES / name, bbox_inches="tight", metadata=metadata)
        print(f"images/{name}: drawn")
    return 1 if check and stale else 0
