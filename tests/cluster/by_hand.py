"""A cluster to try things on by hand, until Ctrl-C: control plane, simulated nodes, the CRD.

.venv/bin/python tests/cluster/by_hand.py
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import clusterbinaries
from support.testserver import OwnServer
from trainserve.errors import EnvironmentProblem


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cluster-by-hand-") as folder:
        server = OwnServer(Path(folder))
        try:
            server.start()
            print(f"export KUBECONFIG={server.server.kubeconfig}")
            print(f"export PATH={clusterbinaries.binaries('kubectl')}:$PATH", flush=True)
            print("simulated nodes run every pod at once; Ctrl-C ends the cluster", file=sys.stderr)
            signal.pause()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
        except EnvironmentProblem as problem:
            sys.exit(f"error: {problem}")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
