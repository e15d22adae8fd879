"""TorchServe handler for a bundle of trainserve."""
