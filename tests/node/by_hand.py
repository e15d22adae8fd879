"""A cluster of one real node to try things on by hand, until Ctrl-C. Root only; see docs/how-to/test-on-a-node.md.

sudo .venv/bin/python tests/node/by_hand.py [--bare]     --bare: without the operator
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import clusterbinaries, nodebinaries, nodepackages
from support.nodecluster import NodeCluster
from support.nodeimages import BASE_IMAGE
from trainserve.errors import EnvironmentProblem


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="node-by-hand-") as folder:
        cluster = None
        try:
            nodebinaries.require_packages()
            cluster = NodeCluster(Path(folder))
            cluster.start()
            if "--bare" in sys.argv[1:]:
                cluster.install_kind()
            else:
                cluster.install_operator()
            print(f"export KUBECONFIG={cluster.control_plane.kubeconfig}")
            print(f"export PATH={clusterbinaries.binaries('kubectl')}:$PATH", flush=True)
            enter = " ".join(cluster.node.inside.words("bash"))
            print(
                f"image for pods: {BASE_IMAGE}; packages on the node: {nodepackages.PACKAGES}\n"
                f"a shell on the node: {enter}\nlogs: {folder}\nCtrl-C ends the cluster",
                file=sys.stderr,
            )
            signal.pause()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
        except EnvironmentProblem as problem:
            sys.exit(f"error: {problem}")
        finally:
            if cluster is not None:
                cluster.stop()


if __name__ == "__main__":
    main()
