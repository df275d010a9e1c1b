"""The command line of the tools: ``python -m tools COMMAND``.

Without a command it lists them; ``python -m tools COMMAND --help`` explains one.
"""

from __future__ import annotations

import importlib
import os
import sys

from tools.kernel import settle

# Each command is the function `main` of a module of this package.
COMMANDS = {
    "test": ("steps", "run the checks and tests, one step after another"),
    "notebooks": ("execute", "execute chapters and store them in canonical form"),
    "normalise": ("canonical", "bring chapters to canonical form without executing them"),
    "solutions": ("solutions", "run the worked solutions and store what they print"),
    "listings": ("listings", "write the chapters' listing cells from the library"),
    "notation": ("notation", "write the tables of symbols and names"),
    "contents": ("contents", "write the lists of chapters"),
    "minutes": ("minutes", "write how long each chapter takes"),
    "pictures": ("pictures", "draw the pictures of the front page"),
    "numbers": ("check_numbers", "check that each number in the prose is computed or sourced"),
    "types": ("type_errors", "count type errors, whose number may only fall"),
    "wording": ("wording", "find phrases that the style guide replaces"),
    "editions": ("editions", "write student and instructor notebooks and slides"),
    "links": ("links", "check every external link over the network"),
    "build": ("build_site", "build the book"),
    "serve": ("serve", "serve the built book on localhost"),
    "downloads": ("downloads", "make the PDF and the zip"),
    "lighthouse": ("lighthouse", "measure the built pages with Lighthouse"),
    "browser": ("browser", "find a Chromium, or install one where possible"),
    "address": ("address", "print where the book is published"),
    "publish": ("publish_site", "build the book as it is published"),
    "publish-chapters": ("publish", "write or push the chapters as they are published"),
    "publish-check": ("publish_check", "prove locally that a published copy works"),
}


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:18}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["usage: python -m tools COMMAND [--help]", "", *lines])


def main(argv: list[str]) -> int:
    """Run a command; return its exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    name, *rest = argv
    if name not in COMMANDS:
        print(f"no command {name!r}\n\n{usage()}", file=sys.stderr)
        return 2
    settle(os.environ)
    module, _ = COMMANDS[name]
    sys.argv[0] = f"python -m tools {name}"  # what `--help` shows as the program
    return importlib.import_module(f"tools.{module}").main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
