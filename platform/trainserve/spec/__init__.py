"""2. What it means: the typed Classifier and PyTorchJob, loaded from flags and files."""
