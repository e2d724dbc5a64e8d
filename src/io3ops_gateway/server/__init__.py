"""The gateway's processes: start, supervisor, workers, rollout of a new configuration."""
