"""5. A cluster on a laptop: API server in memory, kubelet with processes as pods, supervisor."""
