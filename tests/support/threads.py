"""How many threads torch has in tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Threads of several suites on a few cores wait for each other far longer than they compute.

    For every test of a folder whose conftest.py imports this name, or of a module that does.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
