"""The benchmark's command line: ``python -m attnlib.bench``."""

from attnlib.bench import main

main()
