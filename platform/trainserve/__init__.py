"""Train a ResNet on your own pictures across many nodes and serve it: on a laptop or on any Kubernetes cluster."""

__version__ = "0.1.0"
