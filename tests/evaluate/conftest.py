from __future__ import annotations

from support.threads import one_thread  # noqa: F401  a fixture
