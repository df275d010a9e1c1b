"""The environment in which notebooks run, and a client that runs one in it."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import MutableMapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbclient import NotebookClient
    from nbformat import NotebookNode

# One thread, so that sums are added in one order and two kernels share two cores.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment, not the user's
    "MPLBACKEND": "",  # the kernel chooses its own, whatever the shell says
}

# Where a kernel looks for settings: empty folders instead of those in the user's home.
HOMES = {
    "IPYTHONDIR": "ipython",
    "JUPYTER_CONFIG_DIR": "jupyter",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "MPLCONFIGDIR": "matplotlib",
    "MATPLOTLIBRC": "matplotlib",
}

# Variables by which git tells its hooks which repository they are for. Tools and tests work on
# this folder's repository and on temporary ones, and must not take them for that one.
GIT_OF_A_HOOK = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)


def settle(environment: MutableMapping[str, str]) -> None:
    """Make an environment that of this project, whatever the user's shell says.

    Chapters and tests then depend on themselves, and touch no repository but their own.

    Args:
        environment: such as ``os.environ``; it is changed.
    """
    for name in GIT_OF_A_HOOK:
        environment.pop(name, None)
    for name in ("no_proxy", "NO_PROXY"):  # a server on this machine is asked directly
        known = [host for host in environment.get(name, "").split(",") if host]
        own = [host for host in ("127.0.0.1", "localhost") if host not in known]
        environment[name] = ",".join([*known, *own])
    environment.update(KERNEL_ENV)
    home = settings_folder()
    for name, folder in HOMES.items():
        (home / folder).mkdir(parents=True, exist_ok=True)
        environment[name] = str(home / folder)


@cache
def settings_folder() -> Path:
    """Return a folder for what kernels and plots store: of this environment, or a new one."""
    if os.access(sys.prefix, os.W_OK):
        return Path(sys.prefix) / "var" / "attnlib"
    return Path(tempfile.mkdtemp(prefix="attnlib-"))


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
