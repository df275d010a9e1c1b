"""Count mypy's errors in each package and compare them with the numbers allowed.

    python -m tools types           fail if a package has more errors than it may have
    python -m tools types --write   lower the numbers to those found

`type_errors.json` says how many errors a package may have. Floor 1, attention itself, may have
none. Elsewhere the numbers may only fall: `--write` never raises one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tools import ROOT, arguments

ALLOWED = Path(__file__).with_suffix(".json")
CHECKED = ("attnlib", "tools", "_ext")
FLOOR_2 = ("bench", "book", "labs", "testing")  # of attnlib; everything else is floor 1


def package_of(path: str) -> str:
    """Return the package whose number counts a file, such as ``"attnlib/bench"``."""
    top, *folders, _ = path.split("/")
    return f"{top}/{folders[0]}" if folders and folders[0] in FLOOR_2 else top


def found() -> dict[str, list[str]]:
    """Return mypy's errors by package.

    Raises:
        RuntimeError: if mypy itself fails.
    """
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context"]
    done = subprocess.run(
        [*command, *CHECKED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 1) or done.stderr:
        raise RuntimeError(f"mypy failed:\n{done.stdout}{done.stderr}")
    errors = defaultdict(list)
    for line in done.stdout.splitlines():
        if ": error: " in line:
            errors[package_of(line.partition(":")[0].replace("\\", "/"))].append(line)
    return dict(errors)


def compare(errors: dict[str, list[str]], allowed: dict[str, int]) -> tuple[list[str], bool]:
    """Compare the errors found with the numbers allowed.

    Args:
        errors: mypy's lines, by package.
        allowed: how many errors each package may have; none if it is not named.

    Returns:
        What to print, and whether a package has too many errors.
    """
    lines, too_many = [], False
    for package in sorted({*errors, *allowed}):
        count, limit = len(errors.get(package, ())), allowed.get(package, 0)
        if count > limit:
            lines += errors[package]
            lines.append(f"{package}: {count} type errors, at most {limit} allowed")
            too_many = True
        elif count < limit:
            lines.append(
                f"{package}: {count} type errors, {limit} allowed:"
                " lower it with `python -m tools types --write`"
            )
    return lines, too_many


def lowered(errors: dict[str, list[str]], allowed: dict[str, int]) -> dict[str, int]:
    """Return the numbers allowed, lowered to those found where these are smaller."""
    return {name: min(limit, len(errors.get(name, ()))) for name, limit in allowed.items()}


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--write", action="store_true", help="lower the stored numbers")
    options = parser.parse_args(argv)
    errors = found()
    allowed = json.loads(ALLOWED.read_text(encoding="utf-8"))
    if options.write:
        allowed = lowered(errors, allowed)
        ALLOWED.write_text(json.dumps(allowed, indent=2) + "\n", encoding="utf-8")
    lines, too_many = compare(errors, allowed)
    print(*lines, sep="\n", end="\n" if lines else "")
    total, floor_1 = sum(map(len, errors.values())), len(errors.get("attnlib", ()))
    print(f"type errors: {total}, {floor_1} of them in floor 1")
    return 1 if too_many else 0
