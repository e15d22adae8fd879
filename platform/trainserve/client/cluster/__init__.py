"""Runs on a Kubernetes cluster: what the laptop's verbs do there."""
