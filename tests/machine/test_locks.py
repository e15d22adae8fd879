from __future__ import annotations

import os
from pathlib import Path

from trainserve.machine import locks


def test_a_lock_has_one_holder_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not locks.is_held(path)
    held = locks.take(path)
    assert held is not None
    assert locks.is_held(path)
    assert locks.take(path, patience_s=0) is None
    os.close(held)
    assert not locks.is_held(path)
    assert path.exists()
