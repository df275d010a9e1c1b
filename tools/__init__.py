"""Commands that write, check, build and publish the book: ``python -m tools`` lists them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
BUILD = ROOT / "_build"
SITE = BUILD / "html"  # the built book
