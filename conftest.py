"""What every test process and its kernels have in common, however pytest is called."""

import os

import pytest

from tools.kernel import settle

settle(os.environ)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
