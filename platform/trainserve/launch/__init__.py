"""6a. What a pod runs: the node's agent and what each of its ranks does from start to end."""
