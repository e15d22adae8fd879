"""9. How it answers: TorchServe on this machine and the clients that ask it."""
