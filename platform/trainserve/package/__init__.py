"""8. What it becomes: the bundle and the .mar archive."""
