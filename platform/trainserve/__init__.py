"""Train a ResNet on your own pictures across many nodes and serve it: on a laptop or on any Kubernetes cluster.

`from trainserve import Client` is the door for programs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers read it: `typing` would be a third of this import's time
if TYPE_CHECKING:
    from trainserve.client.client import Client as Client

__version__ = "0.1.0"
__all__ = ["Client", "__version__"]


def __getattr__(name: str) -> object:
    # Every process of a run imports this package; only programs of users need the Client.
    if name == "Client":
        from trainserve.client.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
