"""Where a run's numbers go. metrics.jsonl is the source of truth; other trackers are copies."""
