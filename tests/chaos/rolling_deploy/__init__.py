"""A rolling deploy from an earlier release to the current code, with both at work on one database and one queue."""

REPAIRED = "CHAOS_REPAIRED"
"""The environment variable with the folder of one file for each repaired activity."""
