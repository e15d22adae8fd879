"""The PyTorchJob controller: observed, reconcile and one policy a file, all pure."""
