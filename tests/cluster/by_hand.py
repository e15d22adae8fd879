"""A cluster to try things on by hand, until Ctrl-C: control plane, simulated nodes, the CRD.

.venv/bin/python tests/cluster/by_hand.py [--bare]

--bare: no node and no CRD, but an S3 server, for docs/tutorial-cluster.md
"""

from __future__ import annotations

import shlex
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support import clusterbinaries, s3server
from support.controlplane import ControlPlane
from support.testserver import OwnServer
from trainserve.errors import EnvironmentProblem

BUCKETS = ("pictures", "runs")


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="cluster-by-hand-") as folder, ExitStack() as stack:
        try:
            if "--bare" in sys.argv[1:]:
                kubeconfig, env = bare(Path(folder), stack)
                said = "no node is there yet; Ctrl-C ends the cluster"
            else:
                server = OwnServer(Path(folder))
                stack.callback(server.stop)
                server.start()
                kubeconfig, env = server.server.kubeconfig, {}
                said = "simulated nodes run every pod at once; Ctrl-C ends the cluster"
            for name, value in {"KUBECONFIG": str(kubeconfig), **env}.items():
                print(f"export {name}={shlex.quote(value)}")
            print(f"export PATH={clusterbinaries.binaries('kubectl')}:$PATH", flush=True)
            print(said, file=sys.stderr)
            signal.pause()
        except KeyboardInterrupt:
            print("ended", file=sys.stderr)
        except EnvironmentProblem as problem:
            sys.exit(f"error: {problem}")


def bare(folder: Path, stack: ExitStack) -> tuple[Path, dict[str, str]]:
    """The kubeconfig of a control plane, and the environment of a client of the S3 server beside it."""
    plane = ControlPlane(folder / "control-plane", gang=True)
    stack.callback(plane.stop)
    plane.start()
    s3 = stack.enter_context(s3server.serving(folder / "s3"))
    for name in BUCKETS:
        s3.bucket(name)
    return plane.kubeconfig, {name: value for name, value in s3.env.items() if Path(value) != Path("/nonexistent")}


if __name__ == "__main__":
    main()
