"""`work`, a rank's program, on a disk that is slow when a test wants it: `python -m trainserve.launch slowdisk.py`.

Before a checkpoint is written to the disk of a pod whose folder SLOW_DISK names: the file `writing` there says that
one is in the making, and it takes as long as the file `slow` is there.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SLOW_DISK = "SLOW_DISK"
SLOW = "slow"
WRITING = "writing"


def main() -> int:
    from trainserve.launch import work
    from trainserve.train import checkpoint

    folder, write = Path(os.environ[SLOW_DISK]), checkpoint._write

    def slowly(state: checkpoint.Checkpoint, draft: Path) -> None:
        write(state, draft)  # as far as it comes: what a kill finds is a draft without its name
        (folder / WRITING).touch()
        while (folder / SLOW).exists():
            time.sleep(0.05)
        (folder / WRITING).unlink()

    checkpoint._write = slowly
    return work.main()


if __name__ == "__main__":
    sys.exit(main())
