from __future__ import annotations

from support.coroutines import pytest_pyfunc_call  # noqa: F401 - pytest finds it here
