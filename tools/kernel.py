"""The environment in which notebooks run, and a client that runs one in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

# What a kernel sees, here and under nbval (conftest.py): one thread, so that sums are added in
# one order and two kernels share two cores; the kernel of this environment, not the user's.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "JUPYTER_PREFER_ENV_PATH": "1",
}

CELL_TIMEOUT_S = 300

TERMINAL_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def without_colours(text: str) -> str:
    """Return a text without the colour codes that terminals understand."""
    return TERMINAL_COLOUR.sub("", text)


def client(
    notebook: NotebookNode,
    folder: Path,
    *,
    kernel: str = "python3",
    timeout_s: int = CELL_TIMEOUT_S,
) -> NotebookClient:
    """Return a client that executes a notebook in a fresh kernel.

    Args:
        notebook: the notebook; executing it writes its outputs.
        folder: the kernel's working directory.
        kernel: name of the kernel.
        timeout_s: seconds that one cell may take.
    """
    from nbclient import NotebookClient  # tests that run no notebook do without it

    return NotebookClient(
        notebook,
        kernel_name=kernel,
        timeout=timeout_s,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # ipykernel warns about TCP at every start
        resources={"metadata": {"path": str(folder.resolve())}},
    )
