"""6b. What each process does: data, model, loop, checkpoint. Importing this package imports no torch."""
