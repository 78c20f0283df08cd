"""Whoever runs activities: the pool, its processes, and their parts."""
