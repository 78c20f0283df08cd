"""Who runs activities: a pool of processes, each running many at once on one event loop."""
