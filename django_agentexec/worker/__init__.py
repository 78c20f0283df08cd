"""The worker process: runs many activities at once on one event loop."""
