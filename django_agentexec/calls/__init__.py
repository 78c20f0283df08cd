"""Recorded calls: the journal from which a later attempt replays them, and the trace that people read."""
