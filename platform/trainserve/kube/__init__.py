"""3. What is asked for: names, manifests and the protocol of an API server."""
